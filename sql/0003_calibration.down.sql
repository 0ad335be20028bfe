DROP VIEW model_calibration_view;
DROP TABLE model_calibration;
