/* Runs a sandbox's commands: the child of docker-init, under the sandbox's own user.
 *
 *   supervisor FOLDER    waits at FOLDER/spool/wake for lines "run ID" and "kill ID"
 *
 * The host writes spool/inbox/ID, where nothing can be changed from inside, and reads claims/ID.
 * `mkdir claims/ID` decides who runs a command. Each is seen through to its end by a process of its
 * own, its watcher, which is forked and never executed: that is what a command costs here.
 *
 * Whatever else lives in the sandbox has the same user: it can kill and stop all of this and replace
 * what lies in claims. It gains nothing by that but the end of its own command or sandbox. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST_ID = 128, LONGEST_PATH = 192, CHUNK = 65536 };

#define MILLISECOND INT64_C(1000)
#define SECOND (1000 * MILLISECOND)
#define MOST (INT64_MAX / 4 / MILLISECOND)
#define LOST "lost 137 0 +0 +0\n"
#define KILLED "killed 137 0 +0 +0\n"
#define USUAL_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Both serve and each watcher read the signals of their own from it. */
static int signals;

/* Paths, files, time. */

struct path {
    char text[LONGEST_PATH];
};

static struct path below(const char *folder, const char *id, const char *name)
{
    struct path path;
    snprintf(path.text, sizeof path.text, "%s/%s%s%s", folder, id, *name ? "/" : "", name);
    return path;
}

static struct path entry(const char *id, const char *name)
{
    return below("spool/inbox", id, name);
}

static struct path claim(const char *id, const char *name)
{
    return below("claims", id, name);
}

static bool exists(struct path path)
{
    struct stat about;
    return lstat(path.text, &about) == 0;
}

static bool has_ended(const char *id)
{
    struct stat about;
    return lstat(claim(id, "exit").text, &about) == 0 && about.st_size > 0;
}

static bool write_all(int file, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(file, bytes, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes += written;
        length -= (size_t)written;
    }
    return true;
}

/* In one piece, for the host reads it at any time. What somebody laid there instead is not followed
 * and not waited for: the host finds it, and says so. */
static void tell_end(const char *id, const char *line)
{
    int flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    int file = open(claim(id, "exit").text, flags, 0600);
    if (file < 0)
        return;
    write_all(file, line, strlen(line));
    close(file);
}

/* Microseconds, which no change of the wall clock disturbs. */
static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec / 1000;
}

static int left_until(int64_t deadline)
{
    int64_t milliseconds = (deadline - now() + MILLISECOND - 1) / MILLISECOND;
    return milliseconds < 0 ? 0 : milliseconds > INT_MAX ? INT_MAX : (int)milliseconds;
}

/* Who belongs to a command. */

static bool carries(int environment, const char *marker)
{
    char bytes[4096];
    size_t at = 0;
    bool equal = true;
    for (ssize_t got; (got = read(environment, bytes, sizeof bytes)) > 0;) {
        for (ssize_t i = 0; i < got; i++) {
            equal = equal && bytes[i] == marker[at++];
            if (bytes[i] != '\0')
                continue;
            if (equal)
                return true;
            at = 0;
            equal = true;
        }
    }
    return false;
}

static bool is_marked(const char *pid, const char *marker)
{
    struct path path;
    snprintf(path.text, sizeof path.text, "/proc/%.20s/environ", pid);
    int environment = open(path.text, O_RDONLY | O_CLOEXEC);
    if (environment < 0)
        return false;
    bool found = carries(environment, marker);
    close(environment);
    return found;
}

/* The whole group, since one of it may have cleared its variables. */
static void kill_with_group(pid_t pid)
{
    pid_t group = getpgid(pid);
    if (group > 1 && group != getpgrp())
        kill(-group, SIGKILL);
    kill(pid, SIGKILL);
}

static bool kill_marked(const char *marker)
{
    bool found = false;
    DIR *processes = opendir("/proc");
    if (processes == NULL)
        return false;
    for (struct dirent *each; (each = readdir(processes)) != NULL;) {
        if (each->d_name[0] < '1' || each->d_name[0] > '9' || !is_marked(each->d_name, marker))
            continue;
        kill_with_group(atoi(each->d_name));
        found = true;
    }
    closedir(processes);
    return found;
}

/* Until nobody is found, which is when they are dead, or for two seconds. */
static void sweep(const char *id)
{
    char marker[LONGEST_ID + 32];
    snprintf(marker, sizeof marker, "DIRECTOR_EXECUTION=%s", id);
    for (int round = 1; round <= 100 && kill_marked(marker); round++)
        if (round > 3)
            poll(NULL, 0, 20);
}

/* What becomes of a command whose watcher was killed. */
static void lose(const char *id)
{
    sweep(id);
    if (!has_ended(id))
        tell_end(id, exists(entry(id, "kill")) ? KILLED : LOST);
}

/* A command, as the host wrote it, and as it goes on. */

enum phase { RUNNING, TERMINATING, LINGERING, KILLING, ENDED };

struct stream {
    int pipe, file;
    int64_t written;
};

struct command {
    const char *id;
    char *text, *end;
    int64_t timeout, grace, keep, processes;
    char *workdir, **argv, *variables;
    pid_t main;
    bool reaped;
    enum phase phase;
    const char *cause;
    int code;
    int64_t begun, deadline, patience, oom_kills;
    struct stream out, err;
};

static bool read_whole(struct command *command, int file)
{
    struct stat about;
    if (fstat(file, &about) != 0 || about.st_size <= 0)
        return false;
    command->text = malloc((size_t)about.st_size);
    if (command->text == NULL)
        return false;
    command->end = command->text + about.st_size;
    for (char *at = command->text; at < command->end;) {
        ssize_t got = read(file, at, (size_t)(command->end - at));
        if (got <= 0)
            return false;
        at += got;
    }
    return command->end[-1] == '\0';
}

static char *next_field(char **at, const char *end)
{
    char *field = *at;
    if (field >= end)
        return NULL;
    *at += strlen(field) + 1;
    return field;
}

static bool next_number(char **at, const char *end, int64_t *number)
{
    char *field = next_field(at, end), *rest = field;
    if (field == NULL)
        return false;
    errno = 0;
    *number = strtoll(field, &rest, 10);
    return errno == 0 && rest != field && *rest == '\0' && *number >= 0 && *number <= MOST;
}

/* Fields, each with a NUL at its end: milliseconds until TERM and from there to KILL, bytes that are
 * kept of each stream, processes (0: as many as it likes), the working directory, how many
 * arguments, these, and then variables up to the end. */
static bool parse(struct command *command)
{
    char *at = command->text;
    int64_t count;
    if (!next_number(&at, command->end, &command->timeout) ||
        !next_number(&at, command->end, &command->grace) ||
        !next_number(&at, command->end, &command->keep) ||
        !next_number(&at, command->end, &command->processes) ||
        (command->workdir = next_field(&at, command->end)) == NULL ||
        !next_number(&at, command->end, &count) || count < 1 || count > command->end - at)
        return false;
    /* One in front and one behind, for a shell that has to run it. */
    command->argv = calloc((size_t)count + 2, sizeof *command->argv);
    if (command->argv == NULL)
        return false;
    command->argv++;
    for (int64_t i = 0; i < count; i++)
        if ((command->argv[i] = next_field(&at, command->end)) == NULL)
            return false;
    command->variables = at;
    return true;
}

static bool load(struct command *command)
{
    int file = open(entry(command->id, "command").text, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    bool whole = read_whole(command, file);
    close(file);
    return whole && parse(command);
}

/* The process that becomes the command. */

static _Noreturn void refuse(int code, const char *format, ...)
{
    char message[PATH_MAX + 128] = "director: ";
    size_t length = strlen(message);
    va_list words;
    va_start(words, format);
    vsnprintf(message + length, sizeof message - length - 1, format, words);
    va_end(words);
    strcat(message, "\n");
    write_all(STDERR_FILENO, message, strlen(message));
    _exit(code);
}

static void enter(const char *workdir)
{
    struct stat about;
    if (chdir(workdir) == 0)
        return;
    if (stat(workdir, &about) == 0 && S_ISDIR(about.st_mode))
        refuse(126, "the working directory %s cannot be entered", workdir);
    refuse(127, "the working directory %s does not exist", workdir);
}

/* The first along PATH that can be executed, else the first that is there. */
static bool search(const char *name, char *program, size_t room)
{
    const char *at = getenv("PATH");
    char candidate[PATH_MAX];
    struct stat about;
    bool found = false;
    for (at = at ? at : USUAL_PATH; *at != '\0'; at += *at == ':') {
        size_t length = strcspn(at, ":");
        int needed = snprintf(candidate, sizeof candidate, "%.*s/%s", length ? (int)length : 1,
                              length ? at : ".", name);
        at += length;
        if (needed >= (int)sizeof candidate || stat(candidate, &about) != 0 ||
            !S_ISREG(about.st_mode))
            continue;
        bool executable = access(candidate, X_OK) == 0;
        if (executable || !found)
            snprintf(program, room, "%s", candidate);
        found = true;
        if (executable)
            break;
    }
    return found;
}

static const char *locate(const char *name)
{
    static char along[PATH_MAX];
    const char *program = name;
    struct stat about;
    if (*name == '\0')
        refuse(127, "the name of the program is empty");
    if (strchr(name, '/') == NULL)
        program = search(name, along, sizeof along) ? along : NULL;
    if (program == NULL || stat(program, &about) != 0)
        refuse(127, "%s: not found", name);
    if (S_ISDIR(about.st_mode))
        refuse(126, "%s: is a directory", name);
    if (access(program, X_OK) != 0)
        refuse(126, "%s: permission denied (not executable)", name);
    return program;
}

static void execute(const char *program, char **argv)
{
    const char *name = argv[0];
    execv(program, argv);
    if (errno == ENOEXEC) { /* a script that names no interpreter is the shell's */
        argv[-1] = "/bin/sh";
        argv[0] = (char *)program;
        execv(argv[-1], argv - 1);
        errno = ENOEXEC;
    }
    if (errno == E2BIG)
        refuse(126, "%s: the arguments and variables are longer than the kernel takes (128 KiB"
                    " each, 2 MiB or less together): give what is long in a file, or as stdin", name);
    if (errno == ENOENT)
        refuse(127, "%s: the interpreter or loader that it names is not found", name);
    refuse(126, "%s: cannot be executed (%s)", name, strerror(errno));
}

static void expect_to_be_the_first_without_memory(void)
{
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return;
    write_all(file, "500", 3);
    close(file);
}

static _Noreturn void become(struct command *command, int in, int out, int err)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
        _exit(126);
    prctl(PR_SET_DUMPABLE, 1); /* else its files below /proc are not its own */
    expect_to_be_the_first_without_memory();
    if (command->processes > 0) {
        rlim_t most = (rlim_t)command->processes;
        setrlimit(RLIMIT_NPROC, &(struct rlimit){most, most});
    }
    enter(command->workdir);
    for (char *at = command->variables; at < command->end;)
        putenv(next_field(&at, command->end));
    execute(locate(command->argv[0]), command->argv);
    _exit(126);
}

/* Its watcher. */

/* The command could read from its own pipe what we were promised: hence no read that waits. */
static bool open_stream(struct command *command, const char *name, struct stream *stream, int *end)
{
    int ends[2], flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    stream->file = open(claim(command->id, name).text, flags, 0600);
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    stream->pipe = ends[0];
    *end = ends[1];
    return true;
}

static int open_input(const char *id)
{
    int input = open(entry(id, "stdin").text, O_RDONLY | O_CLOEXEC);
    return input >= 0 ? input : open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int64_t oom_kills(void)
{
    static const char *const files[] = {"/sys/fs/cgroup/memory.events",
                                        "/sys/fs/cgroup/memory/memory.oom_control"};
    char text[512];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        int file = open(files[i], O_RDONLY | O_CLOEXEC);
        if (file < 0)
            continue;
        ssize_t length = read(file, text, sizeof text - 1);
        close(file);
        text[length > 0 ? length : 0] = '\0';
        const char *found = strstr(text, "oom_kill ");
        if (found != NULL)
            return strtoll(found + strlen("oom_kill "), NULL, 10);
    }
    return 0;
}

static bool start(struct command *command)
{
    int in = open_input(command->id), out, err;
    if (in < 0 || !open_stream(command, "stdout", &command->out, &out) ||
        !open_stream(command, "stderr", &command->err, &err))
        return false;
    command->oom_kills = oom_kills();
    command->begun = now();
    command->main = fork();
    if (command->main == 0)
        become(command, in, out, err);
    close(in);
    close(out);
    close(err);
    return command->main > 0;
}

/* Keeps the first bytes as they come and counts those above. */
static void keep(struct stream *stream, const char *bytes, int64_t length, int64_t most)
{
    int64_t room = most - stream->written;
    stream->written += length;
    if (stream->file < 0 || room <= 0)
        return;
    if (!write_all(stream->file, bytes, (size_t)(length < room ? length : room))) {
        close(stream->file); /* what came later would not be where it belongs */
        stream->file = -1;
    }
}

static void drain(struct stream *stream, int64_t most)
{
    static char bytes[CHUNK];
    ssize_t got = read(stream->pipe, bytes, sizeof bytes);
    if (got > 0)
        keep(stream, bytes, got, most);
    else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        close(stream->pipe);
        stream->pipe = -1;
    }
}

/* The group at once, each of it once; its first process alone where it has not made it yet. */
static void signal_group(struct command *command, int number)
{
    if (kill(-command->main, number) != 0 && !command->reaped)
        kill(command->main, number);
}

static void kill_all(struct command *command)
{
    signal_group(command, SIGKILL);
    sweep(command->id);
}

/* The main process is gone: a quarter of a second is left to find the end of its output. */
static void finish(struct command *command)
{
    if (strcmp(command->cause, "exit") != 0)
        kill_all(command);
    command->phase = ENDED;
    command->deadline = now() + 250 * MILLISECOND;
}

/* Of a command that has ended, what it left behind is killed. */
static void set_killed(struct command *command)
{
    if (command->phase == ENDED) {
        sweep(command->id);
        return;
    }
    command->cause = "killed";
    if (command->phase == LINGERING) {
        finish(command);
        return;
    }
    command->phase = KILLING;
    command->deadline = now();
}

/* Where TERM ended the main process, its children have the rest of the grace. */
static void main_ended(struct command *command, int status)
{
    command->reaped = true;
    command->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (command->phase != TERMINATING) {
        finish(command);
        return;
    }
    command->phase = LINGERING;
    command->patience = command->deadline;
    command->deadline = now();
}

static void time_is_over(struct command *command)
{
    switch (command->phase) {
    case RUNNING:
        command->cause = "timeout";
        command->phase = TERMINATING;
        command->deadline = now() + command->grace * MILLISECOND;
        signal_group(command, SIGTERM);
        break;
    case LINGERING:
        command->deadline = now() + 50 * MILLISECOND;
        if (now() >= command->patience || kill(-command->main, 0) != 0)
            finish(command);
        break;
    default:
        command->phase = KILLING;
        kill_all(command);
        command->deadline = now() + SECOND;
    }
}

/* Serve asks by a signal to look for the host's wish, for anybody in here can send one. */
static void heed_signals(struct command *command)
{
    struct signalfd_siginfo signal;
    int status;
    while (read(signals, &signal, sizeof signal) == (ssize_t)sizeof signal)
        if (signal.ssi_signo == SIGUSR1 && exists(entry(command->id, "kill")))
            set_killed(command);
    if (!command->reaped && waitpid(command->main, &status, WNOHANG) == command->main)
        main_ended(command, status);
}

static void heed_all(struct command *command, int milliseconds)
{
    struct pollfd ready[] = {{command->out.pipe, POLLIN, 0},
                             {command->err.pipe, POLLIN, 0},
                             {signals, POLLIN, 0}};
    poll(ready, 3, milliseconds);
    if (ready[0].revents)
        drain(&command->out, command->keep);
    if (ready[1].revents)
        drain(&command->err, command->keep);
    if (ready[2].revents)
        heed_signals(command);
}

static bool somebody_may_write(const struct command *command)
{
    return command->out.pipe >= 0 || command->err.pipe >= 0;
}

static void follow(struct command *command)
{
    command->deadline = command->begun + command->timeout * MILLISECOND;
    while (command->phase != ENDED || somebody_may_write(command)) {
        heed_all(command, left_until(command->deadline));
        if (now() < command->deadline)
            continue;
        if (command->phase == ENDED)
            break;
        time_is_over(command);
    }
}

static void conclude(struct command *command)
{
    char line[160];
    if (strcmp(command->cause, "exit") == 0 && command->code != 0 &&
        oom_kills() > command->oom_kills)
        command->cause = "oom";
    snprintf(line, sizeof line, "%s %d %" PRId64 " %" PRId64 " %" PRId64 "\n", command->cause,
             command->code, (now() - command->begun) / MILLISECOND, command->out.written,
             command->err.written);
    tell_end(command->id, line);
}

/* A child that the command left behind would die of SIGPIPE if nobody read what it writes. */
static void drain_for_those_left(struct command *command)
{
    command->keep = 0;
    while (somebody_may_write(command))
        heed_all(command, -1);
}

static void watch(const char *id)
{
    struct command command = {.id = id, .cause = "exit", .code = 137,
                              .out = {-1, -1, 0}, .err = {-1, -1, 0}};
    prctl(PR_SET_NAME, "watcher");
    if (mkdir(claim(id, "").text, 0700) != 0)
        return;
    /* Nobody but this process holds it open: so the host knows at once that nobody watches. */
    int watched = open(entry(id, "watched").text, O_RDWR | O_CLOEXEC);
    if (exists(entry(id, "kill"))) {
        tell_end(id, KILLED);
    } else if (!load(&command) || !start(&command)) {
        tell_end(id, LOST);
    } else {
        follow(&command);
        conclude(&command);
        close(watched);
        drain_for_those_left(&command);
    }
}

/* Who was forked for which command. */

struct child {
    struct child *next;
    pid_t pid;
    bool watches;
    char id[LONGEST_ID + 1];
};

static struct child *children;

static struct child *watcher_of(const char *id)
{
    for (struct child *each = children; each != NULL; each = each->next)
        if (each->watches && strcmp(each->id, id) == 0)
            return each;
    return NULL;
}

/* Where no process can be had the host calls again, or ends the sandbox. */
static void detach(void (*task)(const char *), const char *id)
{
    struct child *child = malloc(sizeof *child);
    if (child == NULL)
        return;
    snprintf(child->id, sizeof child->id, "%s", id);
    child->watches = task == watch;
    child->pid = fork();
    if (child->pid == 0) {
        task(child->id);
        _exit(0);
    }
    if (child->pid < 0) {
        free(child);
        return;
    }
    child->next = children;
    children = child;
}

static void bury(pid_t pid, bool well)
{
    for (struct child **at = &children; *at != NULL; at = &(*at)->next) {
        struct child *child = *at;
        if (child->pid != pid)
            continue;
        *at = child->next;
        if (child->watches && !well)
            detach(lose, child->id);
        free(child);
        return;
    }
}

static void heed_children(void)
{
    struct signalfd_siginfo signal;
    pid_t pid;
    while (read(signals, &signal, sizeof signal) == (ssize_t)sizeof signal)
        ;
    for (int status; (pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0;) {
        if (WIFSTOPPED(status))
            kill(pid, SIGCONT);
        else
            bury(pid, WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
}

/* The supervisor itself. */

static bool is_id(const char *text, size_t length)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789_.-";
    return length >= 1 && length <= LONGEST_ID && strspn(text, letters) == length &&
           strchr("_.-", text[0]) == NULL;
}

static void begin(const char *id)
{
    if (exists(entry(id, "command")) && !exists(claim(id, "")) && watcher_of(id) == NULL)
        detach(watch, id);
}

static void end_early(const char *id)
{
    struct child *watcher = watcher_of(id);
    if (!exists(entry(id, "kill")))
        return;
    if (has_ended(id))
        detach(sweep, id);
    else if (watcher != NULL)
        kill(watcher->pid, SIGUSR1);
    else
        begin(id);
}

static void obey(const char *line, size_t length)
{
    static const struct {
        const char *verb;
        void (*act)(const char *);
    } verbs[] = {{"run ", begin}, {"kill ", end_early}};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        size_t skipped = strlen(verbs[i].verb);
        if (strncmp(line, verbs[i].verb, skipped) == 0 && is_id(line + skipped, length - skipped))
            verbs[i].act(line + skipped);
    }
}

/* Anybody in the sandbox writes there too, whatever they like. */
static void hear(int wake)
{
    static char line[LONGEST_ID + 16];
    static size_t length;
    char heard[4096];
    ssize_t got = read(wake, heard, sizeof heard);
    for (ssize_t i = 0; i < got; i++) {
        if (heard[i] != '\n') {
            length += length < sizeof line;
            line[length - 1] = heard[i];
            continue;
        }
        if (length < sizeof line) {
            line[length] = '\0';
            obey(line, length);
        }
        length = 0;
    }
}

static void for_each_id(const char *folder, void (*act)(const char *))
{
    DIR *found = opendir(folder);
    if (found == NULL)
        return;
    for (struct dirent *each; (each = readdir(found)) != NULL;)
        if (is_id(each->d_name, strlen(each->d_name)))
            act(each->d_name);
    closedir(found);
}

/* Claims of a supervisor that was here before, and of its watchers, who died with it. */
static void tell_lost(const char *id)
{
    if (!has_ended(id))
        tell_end(id, LOST);
}

static int serve(void)
{
    int wake = open("spool/wake", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (wake < 0) {
        perror("director: spool/wake");
        return 1;
    }
    for_each_id("claims", tell_lost);
    for_each_id("spool/inbox", begin);
    for (;;) {
        struct pollfd ready[] = {{wake, POLLIN, 0}, {signals, POLLIN, 0}};
        if (poll(ready, 2, -1) < 0 && errno != EINTR)
            return 1;
        if (ready[1].revents)
            heed_children();
        if (ready[0].revents)
            hear(wake);
    }
}

/* A command shall have the signals as the kernel has them, and nothing open that is not its own. */
static bool prepare(void)
{
    static const char usual[64]; /* the kernel's struct: the C library keeps two signals to itself */
    sigset_t ours;
    for (int number = 1; number < NSIG; number++)
        syscall(SYS_rt_sigaction, number, usual, NULL, NSIG / 8);
    sigemptyset(&ours);
    sigaddset(&ours, SIGCHLD);
    sigaddset(&ours, SIGUSR1);
    sigprocmask(SIG_SETMASK, &ours, NULL);
    syscall(SYS_close_range, 3U, ~0U, 0U);
    prctl(PR_SET_DUMPABLE, 0); /* nobody in here looks into us */
    signals = signalfd(-1, &ours, SFD_NONBLOCK | SFD_CLOEXEC);
    return signals > STDERR_FILENO;
}

int main(int count, char **words)
{
    if (count != 2 || chdir(words[1]) != 0 || !prepare()) {
        fprintf(stderr, "director: usage: supervisor FOLDER, with stdin, stdout and stderr open\n");
        return 2;
    }
    return serve();
}
