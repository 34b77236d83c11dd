/* Prints the CRC-32 of its argument, with the compression library of the system. */
#include <stdio.h>
#include <string.h>
#include <zlib.h>

int main(int count, char **words)
{
    if (count != 2) {
        fprintf(stderr, "usage: checksum TEXT\n");
        return 2;
    }
    const Bytef *text = (const Bytef *)words[1];
    printf("%08lx\n", crc32(0, text, (uInt)strlen(words[1])));
    return 0;
}
