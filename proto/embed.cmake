# Turns the file IN into a C source OUT that defines NAME[] and NAME_size. Run by cmake -P.
file(READ ${IN} HEX HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," BYTES "${HEX}")
string(REGEX REPLACE "((0x..,){16})" "\\1\n" BYTES "${BYTES}")
file(WRITE ${OUT} "#include <stddef.h>
extern const unsigned char ${NAME}[];
extern const size_t ${NAME}_size;
const unsigned char ${NAME}[] = {
${BYTES}0x00};
const size_t ${NAME}_size = sizeof ${NAME} - 1;
")
