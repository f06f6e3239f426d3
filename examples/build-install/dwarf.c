#include <stdio.h>
#include <sys/utsname.h>

int main(void) {
    struct utsname host;
    if (uname(&host) != 0) return 1;
    printf("How are you today, %s?\n", host.nodename);
    return 0;
}
