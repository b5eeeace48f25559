# Runs a sandbox's commands; started by busybox's shell as the child of docker-init.
#
#   supervisor.sh serve      waits at the FIFO for "run ID" and "kill ID"
#   supervisor.sh watch ID   sees one command through to its end
#   supervisor.sh exec ID    becomes the command
#   supervisor.sh sweep ID   kills what a command that has ended left behind
#
# The host writes spool/inbox/ID (nothing in there can be changed from inside) and reads
# claims/ID. `mkdir claims/ID` decides who runs the command. Forks are counted: each costs
# a tenth of a millisecond, and one that fails ends the shell that tried it.

inbox=/director/spool/inbox
claims=/director/claims
busybox=/director/tools/busybox

serve() {
    exec 3<>/director/spool/wake
    for claim in "$claims"/*; do
        [ -d "$claim" ] && [ ! -s "$claim/exit" ] && echo "lost 137 0 +0 +0" >"$claim/exit"
    done
    for entry in "$inbox"/*; do
        begin "${entry##*/}"
    done
    while read -r verb id <&3; do
        case $id in
            '' | *[!A-Za-z0-9_.-]*) continue ;;
        esac
        case $verb in
            run) begin "$id" ;;
            kill) [ -e "$inbox/$id/kill" ] && end_early "$id" ;;
        esac
    done
    exit 1
}

begin() {
    [ -e "$inbox/$1/start" ] && mkdir "$claims/$1" 2>/dev/null || return 0
    detach watch "$1"
}

end_early() {
    if [ -s "$claims/$1/exit" ]; then
        detach sweep "$1"
    else
        begin "$1"
        echo kill 1<>"$inbox/$1/events"
    fi
}

# start-stop-daemon instead of `&`: the shell lets what it puts into the background ignore
# SIGINT and SIGQUIT, and a command could never take that back.
detach() {
    start-stop-daemon -S -q -b -p /nonexistent -x "$busybox" -- \
        sh /director/tools/supervisor.sh "$1" "$2"
}

# Nothing but this shell and the one that follows holds `events` open for reading: that is how the
# host knows that nobody watches any more.
watch() {
    entry=$inbox/$1 claim=$claims/$1 id=$1
    . "$entry/limits"
    exec 5<>"$entry/events"
    if [ -e "$entry/kill" ]; then
        echo "killed 137 0 +0 +0" >"$claim/exit"
        return
    fi
    oom_kills && kills=$n
    begun=${EPOCHREALTIME/./}
    drain stdout <"$entry/stdout" 5>&- &
    drain stderr <"$entry/stderr" 5>&- &
    follow &
    follower=$!
    input=/dev/null
    [ -e "$entry/stdin" ] && input=$entry/stdin
    setsid "$busybox" sh /director/tools/supervisor.sh exec "$id" \
        >"$entry/stdout" 2>"$entry/stderr" <"$input" 5>&-
    code=$?
    echo "end $code" >&5
    wait "$follower"
    [ -s "$claim/exit" ] || follow_no_more
}

# Whoever followed was killed: this shell knows how the command ended all the same.
follow_no_more() {
    cause=exit out=- err=-
    sleep 0.25
    conclude
}

# Keeps the first $keep bytes as they come and counts those above. What a child left behind
# writes later is drained too, since it would die of SIGPIPE otherwise.
drain() {
    dd bs=65536 count="$keep" iflag=count_bytes of="$claim/$1" 2>/dev/null
    rest=$(wc -c)
    echo "$1 +${rest:-0}" 1<>"$entry/events"
}

# Sees everything that happens to one command as lines of its `events`.
follow() {
    phase=running cause=exit code=137 out=- err=- group=
    clock && deadline=$((now + timeout))
    while [ "$phase" != ended ] || [ "$out" = - ] || [ "$err" = - ]; do
        if next_event; then
            happened
        elif [ "$phase" = ended ]; then
            break
        else
            time_is_over
        fi
    done
    conclude
}

# Hundredths of a second that no change of the wall clock disturbs.
clock() {
    read -r now _ </proc/uptime
    now=$((${now%.*} * 100 + 1${now#*.} - 100))
}

# Waits for an event until the deadline, and sees every second that the shell lives which waits
# for the command: one that was stopped is woken, and where it was killed the command is lost.
# busybox's `read -t` drops what it has of a line when the time ends between two letters, so time
# bounds the first letter alone; the rest is there, since a line is written in one piece.
next_event() {
    while clock; [ $((left = deadline - now)) -gt 0 ]; do
        [ $left -gt 100 ] && left=100
        hundredths=$((left % 100 + 100))
        if read -r -n 1 -t "$((left / 100)).${hundredths#1}" kind <&5; then
            read -r rest value <&5
            kind=$kind$rest
            return 0
        fi
        kill -CONT $$ 2>/dev/null || { kind=orphan && return 0; }
    done
    return 1
}

happened() {
    case $kind in
        start) group=${group:-$value} ;;
        stdout) out=$value ;;
        stderr) err=$value ;;
        kill) killed ;;
        end) ended "$value" ;;
        orphan) orphaned ;;
    esac
}

orphaned() {
    [ "$phase" = ended ] || { cause=lost && finish; }
}

killed() {
    case $phase in
        ended) ;;
        lingering) cause=killed && finish ;;
        *) cause=killed phase=killing deadline=$now ;;
    esac
}

# Where TERM ended the main process, its children have the rest of the grace.
ended() {
    code=$1
    case $phase in
        terminating) phase=lingering patience=$deadline deadline=$now ;;
        *) finish ;;
    esac
}

# The main process is gone: the drains have a quarter of a second to find the end of output.
finish() {
    [ "$cause" = exit ] || kill_all
    phase=ended
    clock && deadline=$((now + 25))
}

time_is_over() {
    case $phase in
        running)
            cause=timeout
            if [ -n "$group" ]; then
                phase=terminating deadline=$((now + grace))
                kill -TERM "-$group"
            else
                deadline=$((now + 1))
            fi
            ;;
        lingering)
            deadline=$((now + 5))
            [ $now -lt $patience ] && kill -0 "-$group" || finish
            ;;
        *)
            phase=killing
            kill_all
            deadline=$((now + 100))
            ;;
    esac
}

# The group first, without a fork; then whoever left the group but carries the marker, until
# nobody is found, which is when they are dead, or for two seconds.
kill_all() {
    [ -n "$group" ] && kill -KILL "-$group"
    round=0
    while [ $((round += 1)) -le 100 ]; do
        found=$(grep -slzxF "DIRECTOR_EXECUTION=$id" /proc/[0-9]*/environ)
        [ -n "$found" ] || return 0
        for path in $found; do
            path=${path#/proc/}
            kill -KILL "${path%/environ}"
        done
        [ $round -le 3 ] || sleep 0.02
    done
}

oom_kills() {
    n=0
    for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
        [ -r $file ] || continue
        while read -r word value; do
            [ "$word" = oom_kill ] && n=$value
        done <$file
    done
}

# A size is "+N", where N bytes came after those that are kept, or what was kept at the time
# when a child still held the pipe.
conclude() {
    duration=$(((${EPOCHREALTIME/./} - begun) / 1000))
    if [ "$cause" = exit ] && [ "$code" != 0 ]; then
        oom_kills
        [ "$n" -gt "$kills" ] && cause=oom
    fi
    [ "$out" = - ] && out=$(stat -c %s "$claim/stdout")
    [ "$err" = - ] && err=$(stat -c %s "$claim/stderr")
    echo "$cause $code $duration $out $err" >"$claim/exit"
}

# Variables of the command are exported here, so nothing else may have a name of its own.
become() {
    echo 500 >/proc/self/oom_score_adj
    echo "start $$" 1<>"$inbox/$1/events"
    set -f
    unset SHLVL
    . "$inbox/$1/limits"
    [ -z "$processes" ] || ulimit -u "$processes"
    _director_entry=$inbox/$1
    if ! cd "$workdir" 2>/dev/null; then
        [ -d "$workdir" ] && refuse 126 "the working directory $workdir cannot be entered"
        refuse 127 "the working directory $workdir does not exist"
    fi
    unset OLDPWD timeout grace keep processes workdir inbox claims busybox
    . "$_director_entry/start"
    locate "$1"
    _director_name=$1
    shift
    exec -a "$_director_name" "$_director_program" "$@"
}

# The image's own program, never the applet of the same name.
locate() {
    _director_program=$1
    case $1 in
        '') refuse 127 "the name of the program is empty" ;;
        */*) ;;
        *) search "$1" ;;
    esac
    [ -e "$_director_program" ] || refuse 127 "$1: not found"
    [ -d "$_director_program" ] && refuse 126 "$1: is a directory"
    [ -x "$_director_program" ] || refuse 126 "$1: permission denied (not executable)"
}

search() {
    local IFS=: folder
    _director_program=
    for folder in $PATH; do
        folder=${folder:-.}/$1
        [ -f "$folder" ] || continue
        [ -x "$folder" ] && _director_program=$folder && return
        _director_program=${_director_program:-$folder}
    done
}

refuse() {
    echo "director: $2" >&2
    exit "$1"
}

case $1 in
    serve) serve ;;
    watch) watch "$2" ;;
    exec) become "$2" ;;
    sweep) id=$2 group= && kill_all ;;
esac
