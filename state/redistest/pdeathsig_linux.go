package redistest

import "syscall"

// dieWithParent lets the kernel kill the server when the test's process is gone, however it went.
func dieWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
