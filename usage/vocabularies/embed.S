/* The data of this folder as read-only bytes of the binary. The assembler's -I say where the files
 * are: the expanded tables among what was built, the rest here. */
    .section .rodata

    .macro embed symbol, file
    .balign 64
    .global \symbol
    .hidden \symbol
    .type \symbol, %object
\symbol:
    .incbin "\file"
    .size \symbol, . - \symbol
    .endm

    embed vocabulary_o200k, o200k_base.table
    embed vocabulary_cl100k, cl100k_base.table
    embed pretokenize_characters, characters.bin

    .section .note.GNU-stack,"",%progbits
