//go:build !linux

package redistest

import "syscall"

// dieWithParent has no equal here: a test's process that is killed leaves its servers behind.
func dieWithParent() *syscall.SysProcAttr { return nil }
