package ipsec

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Files in the folder of a realm's charon.
const (
	socketFile   = "charon.vici"
	settingsFile = "strongswan.conf"
	logFile      = "charon.log"
	oldLogFile   = "charon.log.1"
	processFile  = "charon.pid"
	loadedFile   = "loaded"
	outputFile   = "charon.out"
	// environmentFile and namespaceLink are what the unit tandem-charon@.service reads.
	environmentFile = "charon.env"
	namespaceLink   = "netns"
)

// plugins of charon that are loaded, and no others: a fast start, and little for a
// carrier to talk to. Those behind x509 read and check certificates.
const plugins = "random nonce openssl gcm pem pkcs1 pkcs8 pubkey x509 revocation constraints hmac kdf kernel-netlink socket-default vici drbg"

// settings is strongswan.conf of the charon in folder. It includes no other file, so
// that what the system's strongswan.conf says does not matter.
//
// The DPD settings are those of the first tunnel, as they are the charon's: all are
// equal (Validate). Retransmissions come at a steady pace (base 1), since what counts
// is when a dead peer is noticed (I3).
func settings(folder string, ike IKEConfig) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by tandemd: changes are lost.")
	line("charon-systemd {")
	line("  load_modular = no")
	line("  load = %s", plugins)
	// Addresses, routes and interfaces are the realm's, from Tandem's own config.
	line("  install_routes = no")
	line("  install_virtual_ip = no")
	line("  process_route = no")
	line("  retransmit_base = 1")
	line("  retransmit_tries = %d", ike.DPDTries)
	line("  retransmit_timeout = %.3f", ike.DPDTimeout.Seconds())
	line("  replay_window = %d", ike.ReplayWindow)
	// We make each attempt; charon is not to repeat one in its own time as well.
	line("  retry_initiate_interval = 0")
	line("  prefer_configured_proposals = yes")
	line("  plugins {")
	line("    vici {")
	line("      socket = unix://%s", filepath.Join(folder, socketFile))
	line("    }")
	line("    socket-default {")
	line("      use_ipv6 = no")
	line("    }")
	line("  }")
	// Level 1 has no key material; that starts at 4.
	line("  filelog {")
	line("    tandem {")
	line("      path = %s", filepath.Join(folder, logFile))
	line("      default = 1")
	line("      flush_line = yes")
	line("      append = yes")
	line("      ike_name = yes")
	line("      time_format = %%Y-%%m-%%dT%%H:%%M:%%S")
	line("    }")
	line("  }")
	line("  journal {")
	line("    default = -1")
	line("  }")
	line("}")
	return b.String()
}
