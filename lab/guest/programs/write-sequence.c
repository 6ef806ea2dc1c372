/*
 * write-sequence DISK LAST: ten times a second the next decimal number of 16 digits to the start of DISK, each on
 * stable storage before the next begins. A write that fails is tried again with the same number. Ends when DISK is
 * gone. A program, because a shell's fork and exec ten times a second is a fifth of a processor under emulation.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { DIGITS = 16 };

int main(int count, char **arguments)
{
    const struct timespec pause = { .tv_sec = 0, .tv_nsec = 100 * 1000 * 1000 };
    char text[DIGITS + 1];

    if (count != 3)
        return 2;
    int disk = open(arguments[1], O_WRONLY);
    if (disk < 0)
        return 1;
    uint64_t last = strtoull(arguments[2], NULL, 10);
    for (;;) {
        snprintf(text, sizeof text, "%016" PRIu64, last + 1);
        if (pwrite(disk, text, DIGITS, 0) == DIGITS && fsync(disk) == 0)
            last++;
        else if (errno == ENODEV || errno == ENXIO)
            return 0;
        nanosleep(&pause, NULL);
    }
}
