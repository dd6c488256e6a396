"""What guests run: they put files on volumes, look at them, and tell on the console.

One line a word: `MARK SUBJECT VERB TEXT`. Nothing but a shell, Python and e2fsprogs
is needed, and no network.
"""

from typing import Final

MARK: Final = "blockferry-e2e"


def writer(seed: int, mebibytes: int) -> str:
    """A script that makes ext4 with seeded files on each volume it is given."""
    return _attendant(f"""
    mkfs.ext4 -q "$1" && mount "$1" /mnt || return 1
    python3 - <<'PYTHON' || return 1
import os, random
source = random.Random({seed})
for number in range({mebibytes}):
    path = f"/mnt/d{{number % 7}}/f{{number}}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    size = (1 << 20) - number * 37 % 5000
    # Every third compresses well, the others not at all.
    data = source.randbytes(size) if number % 3 else source.randbytes(64).hex().encode() * 8192
    with open(path, "wb") as file:
        file.write(data[:size])
PYTHON""")


def reader() -> str:
    """A script that mounts each volume it is given read-only."""
    return _attendant('mount -o ro "$1" /mnt || return 1')


def booted() -> str:
    """A script that tells which disk it was booted from, by serial."""
    return f"""#!/bin/sh
disk=$(lsblk -nro PKNAME "$(findmnt -no SOURCE /)" | head -n 1)
echo "{MARK} guest root $(lsblk -dnro SERIAL "/dev/$disk")" > /dev/console
"""


def _attendant(prepare: str) -> str:
    """Do `prepare` with each device that comes, tell what its files are, leave it.

    A device is known by its serial, the beginning of the volume's id, on whichever
    bus it comes. What is told: the number of files, their bytes, and a checksum over
    names, modes and contents.
    """
    return f"""#!/bin/sh
tell() {{ echo "{MARK} $*" > /dev/console; }}
prepare() {{
    {prepare}
}}
look() {{
    prepare "/dev/$1" || return 1
    cd /mnt
    {{
        find . -type f -print0 | sort -z | xargs -0 sha256sum
        find . -type f -printf '%m %p\\n' | sort
    }} > /tmp/sums
    found="$(find . -type f | wc -l) $(find . -type f -print0 | xargs -0 cat | wc -c)"
    cd /
    umount /mnt && sync || return 1
    tell "$2" holds "$found $(sha256sum < /tmp/sums | cut -c 1-32)"
}}
tell guest ready
seen=" "
disks=""
while sleep 1; do
    # No process is started for it: an emulated lsblk a second is half a core of the host.
    there=""
    for disk in /sys/block/*; do
        number=""
        [ -r "$disk/diskseq" ] && read -r number < "$disk/diskseq"
        there="$there $disk $number"
    done
    [ "$there" = "$disks" ] && continue
    disks=$there
    udevadm settle
    lsblk -dnro NAME,SERIAL > /tmp/disks
    now=" "
    while read -r name serial; do
        case "$serial" in ????????-????-????-?*) ;; *) continue ;; esac
        now="$now$serial "
        case "$seen" in *" $serial "*) continue ;; esac
        look "$name" "$serial" < /dev/null 2> /dev/console || tell "$serial" failed here
    done < /tmp/disks
    seen=$now
done
"""
