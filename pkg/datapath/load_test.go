package datapath

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// An operator reads which capability is missing, whichever step of loading tells.
func TestExplainNamesTheCapability(t *testing.T) {
	for err, want := range map[error]string{
		unix.EPERM:  "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
		unix.EACCES: "without CAP_PERFMON",
	} {
		if got := explain(fmt.Errorf("load: %w", err)).Error(); !strings.Contains(got, want) {
			t.Errorf("%v gives %q, not %q", err, got, want)
		}
	}
}
