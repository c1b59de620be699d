#!/usr/bin/env bash
# systemd-box.sh FOLDER: boots a real systemd in namespaces of its own, so that units can be started,
# killed and restarted for real. Nothing outside is touched: the root is an overlay in memory with its own
# /dev, /run, /tmp; the control group is one of its own; the network namespace is the caller's.
#
# FOLDER/tree      files laid over the root (units, configuration)
# FOLDER/programs  lines "FILE PATH": FILE of this machine appears at PATH in the box
# FOLDER/unit      the unit to boot into
# FOLDER/group     name of the control group, a new one below the root of the cgroup2 hierarchy
#
# Runs until it is killed, and everything in it dies with it: the first process of a PID namespace.
# What then remains, an empty control group, is the janitor's (`cgroup NAME`).
set -euo pipefail
folder=$(realpath "${1:?usage: systemd-box.sh FOLDER}")
export folder unit group
unit=$(<"$folder/unit") group=$(<"$folder/group")

# In a mount namespace: the control group is entered, so that it becomes the root the box sees.
outer=$(cat <<'OUTER'
set -euo pipefail
mount --make-rprivate /
mkdir -p "$folder/box"
mount -t cgroup2 cgroup2 "$folder/box"
mkdir "$folder/box/$group"
echo $$ > "$folder/box/$group/cgroup.procs"
umount "$folder/box"
mount -t tmpfs -o mode=755 tmpfs "$folder/box"
exec unshare --pid --fork --kill-child --mount --cgroup --uts --ipc bash -c "$inner"
OUTER
)
# Process 1 of the box.
inner=$(cat <<'INNER'
set -euo pipefail
cd "$folder/box"
mkdir upper work root
cp -a "$folder/tree/." upper/
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
root=$folder/box/root
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for d in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$d"; done
chmod 1777 "$root/tmp"
mkdir -p "$root/dev/pts" "$root/dev/shm" "$root/dev/net" "$root/run/lock"
for d in null zero full random urandom tty net/tun; do
	touch "$root/dev/$d"
	mount --bind "/dev/$d" "$root/dev/$d"
done
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for l in fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
	to=${l#*:}
	[ "$l" = fd ] && to=''
	ln -s "/proc/self/fd${to#fd}" "$root/dev/${l%%:*}"
done
while read -r file path; do
	touch "$root$path"
	mount --bind "$file" "$root$path"
done < "$folder/programs"
hostname "$group"
cd "$root"
mkdir -p old
pivot_root . old
umount -l old
# As on a machine: a mount made by one is seen by all. (In a container systemd leaves that to whoever made it.)
mount --make-rshared /
# The units that stand in these folders and no others, whatever the machine has installed.
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=lxc \
	SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system:/usr/lib/systemd/box \
	/lib/systemd/systemd --system --unit="$unit" --log-target=console --show-status=no </dev/null
INNER
)
export inner
exec unshare --mount bash -c "$outer"
