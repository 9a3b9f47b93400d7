package realm

import (
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestLocalPorts: media ports that any program may be given are found, reserved ones are not.
func TestLocalPorts(t *testing.T) {
	media := call.PortRange{First: 30000, Last: 39999}
	rows := []struct {
		ports, reserved string
		want            int
	}{
		{"32768\t60999\n", "\n", 7232},
		{"40000\t60999\n", "\n", 0},
		{"1024\t29999\n", "\n", 0},
		{"1024\t65535\n", "\n", 10000},
		{"32768\t60999\n", "30000-39999\n", 0},
		{"32768\t60999\n", "8080,32768-39998\n", 1},
	}
	for _, row := range rows {
		l, err := parseLocalPorts(row.ports, row.reserved)
		if err != nil {
			t.Errorf("%q, %q: %v", row.ports, row.reserved, err)
			continue
		}
		if got := l.Clash(media); got != row.want {
			t.Errorf("%q without %q: %d ports clash, want %d", row.ports, row.reserved, got, row.want)
		}
	}
	if _, err := ReadLocalPorts(); err != nil {
		t.Errorf("this kernel's: %v", err)
	}
	if _, err := parseLocalPorts("soup", ""); err == nil {
		t.Error("soup is taken for a range")
	}
}
