#!/bin/busybox sh
# The first process of the VM. The console (ttyS0) is the kernel's; what came of the tests goes to ttyS1, in lines
# that begin with `@`.
/bin/busybox --install -s /bin
export PATH=/sbin:/bin HOME=/root TMPDIR=/tmp RUST_BACKTRACE=0
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
stty -F /dev/ttyS1 raw -echo
exec 3>/dev/ttyS1
for module in $(cat /modules/order); do
    insmod /modules/$module 2>/tmp/log && continue
    echo "@begin module $module" >&3
    cat /tmp/log >&3
    echo "@failed 1" >&3
done
ip link set lo up
echo "@kernel $(uname -r)" >&3
export WEIR_BIN=/weir/weir WEIR_TEST_IN_VM=1
for program in /tests/*; do
    suite=${program##*/}
    for line in $($program --list --format=terse --include-ignored 2>/dev/null | sed -n 's/: test$//p'); do
        # No test, but a process that tests start.
        [ "$line" = loader ] && continue
        case "$suite::$line" in @FILTER@) ;; *) continue ;; esac
        # What compares with files of the workspace says nothing about a kernel, and they are not here.
        case "$line" in *_the_documentation_*) continue ;; esac
        echo "@begin $suite::$line" >&3
        timeout -s KILL 240 $program --exact "$line" --include-ignored --test-threads=1 >/tmp/log 2>&1 </dev/null
        code=$?
        if [ $code != 0 ]; then
            tail -c 6000 /tmp/log >&3
            echo >&3
            echo "@failed $code" >&3
        elif grep -q '^SKIPPED\|[.][.][.] SKIPPED' /tmp/log; then
            echo "@skipped $(sed -n 's/.*SKIPPED [^ ]*: //p' /tmp/log | head -n 1)" >&3
        else
            echo "@ok" >&3
        fi
    done
done
echo "@end" >&3
sync
poweroff -f
