package vmlab

import (
	"os"
	"strings"
)

// hardware: KVM should work here. Without the processor's support /dev/kvm may still be
// there, for guests that were made for that (PVM); a Debian kernel does not boot on it.
func hardware() bool {
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	kvm.Close()
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(cpu)) {
		if strings.HasPrefix(line, "flags") {
			flags := " " + strings.TrimSpace(line) + " "
			return strings.Contains(flags, " vmx ") || strings.Contains(flags, " svm ")
		}
	}
	return false
}
