#!/bin/sh
# mkimage.sh ROOTFS.tar IMAGE: kernel, command line and root file system as one program for UEFI, on a FAT file system.
# Every time in it is that of the commit, and every name and number is fixed.
set -eu
rootfs=$1
image=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}" TZ=UTC MTOOLS_SKIP_CHECK=1

tar -xf "$rootfs" -C "$work" --wildcards './boot/vmlinuz-*' ./usr/lib/systemd/boot/efi/linuxx64.efi.stub ./usr/lib/os-release
tar -cf "$work/init.tar" --owner=0 --group=0 --numeric-owner --mode=0755 --mtime="@$SOURCE_DATE_EPOCH" init
bsdtar -cf "$work/root.cpio" --format newc \
  --exclude './boot/*' --exclude './lib/modules/*' --exclude './usr/lib/modules/*' --exclude './dev/*' \
  --exclude './usr/share/doc/*' --exclude './usr/share/man/*' --exclude './usr/share/locale/*' --exclude './var/*' \
  "@$rootfs" "@$work/init.tar"
gzip -n -6 "$work/root.cpio"
echo "console=ttyS0 panic=1 rdinit=/init" >"$work/cmdline"

# The places are those of systemd's own documentation of its stub, systemd-stub(7).
objcopy --preserve-dates \
  --add-section .osrel="$work/usr/lib/os-release" --change-section-vma .osrel=0x20000 \
  --add-section .cmdline="$work/cmdline" --change-section-vma .cmdline=0x30000 \
  --add-section .linux="$(echo "$work"/boot/vmlinuz-*)" --change-section-vma .linux=0x2000000 \
  --add-section .initrd="$work/root.cpio.gz" --change-section-vma .initrd=0x4000000 \
  "$work/usr/lib/systemd/boot/efi/linuxx64.efi.stub" "$work/bootx64.efi"
touch -d "@$SOURCE_DATE_EPOCH" "$work/bootx64.efi"

mkdir -p "$(dirname "$image")"
rm -f "$image"
kib=$(($(stat -c %s "$work/bootx64.efi") / 1024 + 4096))
mkfs.fat -F 32 --invariant -C "$image" "$((kib < 65536 ? 65536 : kib))" >/dev/null
mmd -i "$image" ::/EFI ::/EFI/BOOT
mcopy -m -i "$image" "$work/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
