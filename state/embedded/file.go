package embedded

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse says that another process has the store open for writing.
var ErrInUse = errors.New("store in use")

// resolve is the one name of the file, however it was reached: the lock beside it must be the same for everybody.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		return target, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path)) // the file is still to be made
	return filepath.Join(dir, filepath.Base(path)), err
}

// lockFile takes the lock that makes this the only process which writes the store. It stands beside the database,
// since closing any descriptor of the database itself would drop SQLite's own locks; it is never deleted, since
// whoever had it open would then hold a lock on nothing.
func lockFile(path string) (*os.File, error) {
	name := path + ".lock"
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		owner, _ := io.ReadAll(io.LimitReader(f, 20))
		_ = f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		return nil, fmt.Errorf("%w: %s is locked by process %s; stop that process, or set SIGNALBOX_STORE to another file",
			ErrInUse, name, strings.TrimSpace(string(owner)))
	}
	// The number only helps whoever is refused; the lock holds without it.
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}

// createFile makes an empty database that only its owner can read, unless there is one. The directory is synced, so
// that the name survives a power failure as the content will.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// busyTimeout is how long a connection waits for what is none of ours: a person's shell, a backup.
const busyTimeout = 5 * time.Second

// dsn names the file to the driver; the path is escaped, so that "?" or "%" in it mean themselves.
func dsn(path string, parameters ...string) string {
	parameters = append(parameters, fmt.Sprintf("_pragma=busy_timeout(%d)", busyTimeout.Milliseconds()))
	return (&url.URL{Scheme: "file", Path: path, RawQuery: strings.Join(parameters, "&")}).String()
}
