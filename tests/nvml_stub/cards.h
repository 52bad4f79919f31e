/* What the stand-ins have in common: the state, and who has memory of a card. The keys are explained in nvml.c. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SUCCESS 0
#define LENGTH 256
#define MOST 64
#define TOTAL "85899345920"

typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } process;

/* Copies the value of `key` to `value`; returns 1 if there is such a line. */
static int read_line(const char *key, char *value) {
    const char *path = getenv("NVML_STUB_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[LENGTH];
    size_t length = strlen(key);
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) == 0 && line[length] == '=') {
            line[strcspn(line, "\n")] = 0;
            strcpy(value, line + length + 1);
            found = 1;
        }
    }
    if (file) fclose(file);
    return found;
}

/* The value of `key` for one card (index < 0: of none), or `otherwise`; returns NVML's error code. */
static int look_up(const char *key, int index, const char *otherwise, char *value) {
    char one[LENGTH];
    int code = SUCCESS;
    snprintf(one, sizeof one, "%s.%d", key, index);
    if (!(index >= 0 && read_line(one, value)) && !read_line(key, value))
        snprintf(value, LENGTH, "%s", otherwise);
    sscanf(value, "error %d", &code);
    return code;
}

static unsigned long long look_up_number(const char *key, int index, const char *otherwise) {
    char value[LENGTH];
    return look_up(key, index, otherwise, value) == SUCCESS ? strtoull(value, NULL, 10) : 0;
}

/* Whether a process runs; a zombie has no memory any more. */
static int lives(unsigned pid) {
    char path[LENGTH], line[1024], *end;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    line[fread(line, 1, sizeof line - 1, file)] = 0;
    fclose(file);
    end = strrchr(line, ')');
    return end && end[2] != 'Z' && end[2] != 'X';
}

/* Whether the memory of a dead holder, the file at `path`, is still in use: whoever sees it first notes the time. */
static int lingers(const char *path) {
    unsigned long long most = look_up_number("linger_ms", -1, "0");
    char mark[4 * LENGTH];
    struct stat about;
    struct timespec now;
    if (!most) return 0;
    snprintf(mark, sizeof mark, "%s.gone", path);
    int file = open(mark, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (file >= 0) close(file);
    if (stat(mark, &about) != 0) return 0;
    clock_gettime(CLOCK_REALTIME, &now);
    long long past = (now.tv_sec - about.st_mtim.tv_sec) * 1000LL + (now.tv_nsec - about.st_mtim.tv_nsec) / 1000000;
    return past < (long long)most;
}

/* Up to MOST processes of a card, as `processes` and the folder `holders` have them; returns how many. What dead ones
 * still have is added to `*lingering`. */
static unsigned find_processes(int index, process *found, unsigned long long *lingering) {
    char value[LENGTH], path[3 * LENGTH];
    unsigned count = 0, pid, card;
    unsigned long long bytes;
    int end;
    look_up("processes", index, "", value);
    for (char *word = strtok(value, " "); word && count < MOST; word = strtok(NULL, " "))
        if (sscanf(word, "%u:%llu", &pid, &bytes) == 2) found[count++] = (process){pid, bytes, 0, 0};
    look_up("holders", -1, "", value);
    DIR *folder = *value ? opendir(value) : NULL;
    for (struct dirent *entry; folder && count < MOST && (entry = readdir(folder));) {
        if (sscanf(entry->d_name, "%u.%u%n", &pid, &card, &end) != 2 || entry->d_name[end]) continue;
        if (card != (unsigned)index) continue;
        snprintf(path, sizeof path, "%s/%s", value, entry->d_name);
        FILE *file = fopen(path, "r");
        if (!file || fscanf(file, "%llu", &bytes) != 1) bytes = 0;
        if (file) fclose(file);
        if (lives(pid)) found[count++] = (process){pid, bytes, 0, 0};
        else if (bytes && lingers(path)) *lingering += bytes;
    }
    if (folder) closedir(folder);
    return count;
}

/* Bytes of a card that are in use. */
static unsigned long long find_used(int index) {
    process held[MOST];
    unsigned long long used = look_up_number("memory_used", index, "0");
    for (unsigned i = find_processes(index, held, &used); i-- > 0;) used += held[i].memory;
    return used;
}
