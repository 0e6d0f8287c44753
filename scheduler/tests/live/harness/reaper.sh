# Ends everything that was started in $FOLDER, and removes $FOLDER, once the test process is done with it.
#
# The test process holds the other end of our standard input. It closes it when it is done, and the kernel closes it if the
# test process is killed: in both cases `read` returns. Only processes that belong to the folder are ended: those named in a
# pid file below it whose command line mentions it, so that a number used again by another process is safe, and those whose
# executable lies in it.

read -r _
cd /

processes() {
    find "$FOLDER" -name '*.pid' 2>/dev/null | while read -r file; do
        pid=$(cat "$file" 2>/dev/null)
        if [ -n "$pid" ] && grep -qF -e "$FOLDER" "/proc/$pid/cmdline" 2>/dev/null; then
            echo "$pid"
        fi
    done
    find /proc -maxdepth 2 -name exe -lname "$FOLDER/*" 2>/dev/null | cut -d / -f 3
}

rounds=0
while pids=$(processes) && [ -n "$pids" ]; do
    rounds=$((rounds + 1))
    if [ "$rounds" -gt 100 ]; then
        echo "these processes do not end:" $pids >&2
        exit 1
    fi
    kill -KILL $pids 2>/dev/null
    sleep 0.05
done
rm -rf "$FOLDER"
