-- What one token of o200k_base is worth in models whose tokenizer is not public.
CREATE TABLE model_calibration (
    model      TEXT PRIMARY KEY,
    ratio      INTEGER NOT NULL CHECK (ratio > 0),  -- millionths
    tokens     INTEGER NOT NULL CHECK (tokens > 0), -- counted ones behind it
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE VIEW model_calibration_view AS
SELECT model, printf('%d.%06d', ratio / 1000000, ratio % 1000000) AS ratio, tokens,
       strftime('%Y-%m-%dT%H:%M:%S', updated_at / 1000, 'unixepoch')
           || printf('.%03dZ', updated_at % 1000) AS updated_at
  FROM model_calibration;
