package admin

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
)

// ofProcess fills in what the process can say of itself.
func (r *Resources) ofProcess() error {
	r.Goroutines = runtime.NumGoroutine()
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("count file descriptors: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("count file descriptors: %w", err)
	}
	r.OpenFDs = len(names) - 1 // not the one that read the folder
	return nil
}

// ThisVersion describes the calling binary; version is what its build set.
func ThisVersion(version string) Version {
	v := Version{Version: version, Go: runtime.Version(), Kernel: kernelRelease()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Commit = s.Value
			}
		}
	}
	return v
}

func kernelRelease() string {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return ""
	}
	var release []byte
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		release = append(release, byte(c))
	}
	return string(release)
}
