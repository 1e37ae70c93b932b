package embedded

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// refuseNetwork answers an error if dir is on a network file system: locks and shared memory, which SQLite's
// write-ahead log is built on, are not dependable there.
func refuseNetwork(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	if name := networkFS(uint32(fs.Type)); name != "" { //nolint:gosec // magic numbers have 32 bits; the field's width depends on the architecture
		return fmt.Errorf("%s is on a network file system (%s); put the store on a local disk, or use Redis", dir, name)
	}
	return nil
}

// networkFS names the network file system with this magic number; empty = it is none.
func networkFS(magic uint32) string {
	switch magic {
	case unix.NFS_SUPER_MAGIC:
		return "NFS"
	case unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return "SMB"
	case unix.V9FS_MAGIC:
		return "9P"
	}
	return ""
}
