package metrics

import "github.com/prometheus/client_golang/prometheus"

// family is one metric name with its help, labels and type.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("tandem_"+name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("tandem_"+name, help, labels, nil), prometheus.CounterValue}
}

var (
	buildInfo = gauge("build_info", "What runs; the value is always 1.", "version", "goversion", "node")

	callsActive   = gauge("calls_active", "Calls now, ringing ones included.")
	callsTotal    = counter("calls_total", "Calls that came in, refused ones included.")
	callsAnswered = counter("calls_answered_total", "Calls that were answered, those still up included.")
	callsFailed   = counter("calls_failed_total", "Ended calls that had not been answered, for whatever cause.")
	callsEnded    = counter("calls_ended_total", "Ended calls by the code of their cause.", "cause")

	trunkActive = gauge("trunk_calls_active",
		"Calls of a trunk now; direction in comes from it, out goes to it.", "trunk", "realm", "direction")
	trunkAttempts = counter("trunk_attempts_total", "Calls that took a slot of a trunk.", "trunk", "realm", "direction")
	trunkCalls    = counter("trunk_calls_total",
		"What came of a trunk's calls: answered or failed.", "trunk", "realm", "direction", "result")
	trunkMaxCalls = gauge("trunk_max_calls",
		"Limit on a trunk's calls, both directions together; 0 is none.", "trunk", "realm", "kind")

	trunkInService = gauge("trunk_in_service", "Whether new calls may go to a trunk: 1 if they may, else 0.", "trunk", "realm")

	trunkState   = gauge("trunk_state", "State of a trunk: 1 for the state it is in, 0 for the others.", "trunk", "realm", "state")
	trunkChanges = counter("trunk_state_changes_total", "Changes of a trunk's state.", "trunk", "realm")
	trunkMaxRate = gauge("trunk_max_calls_per_second", "Limit on a trunk's new calls, each direction by itself; 0 is none.", "trunk", "realm")
	trunkRefused = counter("trunk_refused_total",
		"Calls that limits or the state of a trunk held up: those in got 503, those out went by another trunk. With reason register-rate REGISTER requests.", "trunk", "realm", "direction", "reason")
	trunkASR = gauge("trunk_asr_ratio",
		"Answered ones of the attempts in health_window whose outcome is known (ITU-T E.425); no sample without any.", "trunk", "realm", "direction")
	trunkNER = gauge("trunk_ner_ratio",
		"The same with those that the called party is the reason of: busy, no answer, rejected.", "trunk", "realm", "direction")
	trunkPDD    = gauge("trunk_pdd_seconds", "Mean post-dial delay in health_window; no sample without any.", "trunk", "realm", "direction")
	trunkACD    = gauge("trunk_acd_seconds", "Mean duration of the calls that ended in health_window; no sample without any.", "trunk", "realm", "direction")
	trunkTarget = gauge("trunk_target_alive", "Whether an address of a trunk may get calls: 1 if it may, else 0.", "trunk", "realm", "target")
	trunkRTT    = gauge("trunk_probe_rtt_seconds",
		"Round trip of the last OPTIONS that an address of a trunk answered; no sample before the first.", "trunk", "realm", "target")

	trunkOutcomes = counter("trunk_outcomes_total",
		"What became of a trunk's attempts, by class: calls, what the called party did, and what was the network's fault.",
		"trunk", "realm", "direction", "class")
	trunkProbeFailures = counter("trunk_target_probe_failures_total",
		"OPTIONS to an address of a trunk without an answer that says it takes calls.", "trunk", "realm", "target")

	groupShare = gauge("group_member_share",
		"Share of a group's first choices that a member gets now, 0 to 1; 0 where the strategy does not go by weights.", "group", "trunk")
	groupMultiplier = gauge("group_member_multiplier",
		"What an adaptive group makes of a member's weight, 0.1 to 1; 1 changes nothing.", "group", "trunk")

	realmUp = gauge("realm_up",
		"Whether a realm's network can carry calls: 1 if it can, also while something of it is not as the config wants it, else 0.", "realm")
	realmState   = gauge("realm_state", "State of a realm's network: 1 for the state it is in, 0 for the others.", "realm", "state")
	realmObjects = gauge("realm_objects",
		"Devices, addresses, routes, rules and settings that a realm wants of the kernel, by their state: whatever is not ok is drift.",
		"realm", "state")
	realmRepairs = counter("realm_repairs_total", "Objects that were put back after somebody had changed or removed them.", "realm")
	realmLeaks   = counter("realm_leaks_total",
		"Packets refused because they had no business in a realm, by reason: clear text where ESP is due, or another realm's addresses.",
		"realm", "reason")

	tunnelInfo = gauge("tunnel_info",
		"A tunnel: rank 1 is its realm's primary, others are backups; the value is always 1.", "realm", "tunnel", "keying", "rank")
	tunnelUp     = gauge("tunnel_up", "Whether a tunnel can carry traffic: 1 if it can, else 0.", "realm", "tunnel")
	tunnelActive = gauge("tunnel_active", "Whether a realm's traffic leaves by this tunnel: 1 if it does, else 0.", "realm", "tunnel")
	tunnelState  = gauge("tunnel_state", "State of a tunnel: 1 for the state it is in, 0 for the others.", "realm", "tunnel", "state")
	tunnelCause  = gauge("tunnel_cause_info",
		"Why a tunnel is not up, in a word; the value is always 1, and there is no sample while it is up.", "realm", "tunnel", "cause")
	tunnelEstablished = gauge("tunnel_established_timestamp_seconds",
		"When the IKE security association was made, in Unix time; no sample without one.", "realm", "tunnel")
	tunnelRekeys = counter("tunnel_rekeys_total",
		"New keys of a tunnel, by kind: of its IKE or child security association, or manual ones.", "realm", "tunnel", "kind")
	tunnelBytes = counter("tunnel_bytes_total",
		"Bytes decrypted (direction in) and encrypted (out), ESP's own not counted.", "realm", "tunnel", "direction")
	tunnelPackets = counter("tunnel_packets_total",
		"Packets decrypted (direction in) and encrypted (out).", "realm", "tunnel", "direction")
	tunnelErrors = counter("tunnel_errors_total",
		"Packets that a tunnel dropped, by kind, e.g. replay or integrity.", "realm", "tunnel", "kind")
	tunnelFailures = counter("tunnel_failures_total",
		"Attempts to bring a tunnel up that came to nothing, by cause.", "realm", "tunnel", "cause")
	tunnelDPD = counter("tunnel_dpd_failures_total",
		"How often the peer was given up because it did not answer (dead peer detection).", "realm", "tunnel")
	monitorRTT = gauge("tunnel_monitor_rtt_seconds",
		"Round trip of the last answered echo request through a tunnel; no sample before the first.", "realm", "tunnel")
	monitorMissed = gauge("tunnel_monitor_missed",
		"Echo requests in a row that had no answer; no sample without a monitor.", "realm", "tunnel")

	mediaPackets = counter("trunk_media_packets_total",
		"RTP packets that the trunk's peers sent in calls that were answered, early media included.", "trunk", "realm")
	mediaBytes = counter("trunk_media_bytes_total",
		"Bytes of those packets, RTP headers and RTCP among them included.", "trunk", "realm")
	mediaLost = counter("trunk_media_lost_packets_total",
		"RTP packets that the trunk's peers sent and that never came, by sequence number.", "trunk", "realm")
	mediaReordered = counter("trunk_media_reordered_packets_total",
		"RTP packets that came after a later one.", "trunk", "realm")
	mediaDuplicated = counter("trunk_media_duplicated_packets_total", "RTP packets that came again.", "trunk", "realm")
	mediaRefused    = counter("trunk_media_refused_packets_total",
		"Packets to a call's port from another source than its peer.", "trunk", "realm")
	mediaOutOfPolicy = counter("trunk_media_out_of_policy_packets_total",
		"Packets of the peer that were dropped: not RTP, or of a payload type that was not agreed on.", "trunk", "realm")
	mediaRemoteLost = counter("trunk_media_remote_lost_packets_total",
		"RTP packets that the trunk's peers report as lost of what they get from us.", "trunk", "realm")

	mediaLegs = gauge("trunk_media_legs",
		"Legs of answered calls now, by the listening quality of what the peer sends: categories of ITU-T G.109, or unknown.",
		"trunk", "realm", "quality")
	mediaMOS = gauge("trunk_media_mos_average",
		"Mean of the E-model's MOS over the legs that have one now.", "trunk", "realm")
	mediaMOSMin = gauge("trunk_media_mos_minimum", "Least MOS of a leg now.", "trunk", "realm")
	mediaJitter = gauge("trunk_media_jitter_seconds_average",
		"Mean interarrival jitter over the legs that have some now.", "trunk", "realm")
	mediaJitterMax = gauge("trunk_media_jitter_seconds_maximum", "Largest interarrival jitter of a leg now.", "trunk", "realm")
	mediaRTT       = gauge("trunk_media_rtt_seconds_average",
		"Mean round trip to the peers over the legs whose peer reports it now.", "trunk", "realm")
	mediaRTTMax = gauge("trunk_media_rtt_seconds_maximum", "Longest round trip of a leg now.", "trunk", "realm")

	engineInfo    = gauge("engine_info", "The media engine that runs; the value is always 1.", "engine")
	engineFlows   = gauge("engine_flows", "Flows installed: one direction of one RTP or RTCP stream each.")
	enginePackets = counter("engine_packets_total", "Media packets forwarded, in the kernel or in user space.", "path")
	engineExits   = counter("engine_exits_total",
		"Packets that left the media plane, by the realm they came in by (empty if none), reason and verdict.", "realm", "reason", "verdict")
	engineEvents = counter("engine_events_lost_total",
		"Events of the engine that were not delivered: nobody read them in time, or a flow sent RTCP too often.")
	attachment = gauge("engine_attachment_info",
		"A device that the kernel engine's program is on; the value is always 1.", "device", "hook", "mode")
	portsInUse = gauge("rtp_ports_in_use", "RTP port pairs of calls, those in quarantine not counted.")

	sipRequests        = counter("sip_requests_total", "SIP requests by method.", "realm", "direction", "method")
	sipResponses       = counter("sip_responses_total", "SIP responses by class.", "realm", "direction", "class")
	sipRetransmissions = counter("sip_retransmissions_total", "SIP messages that came or went again.", "realm", "direction")
	sipUnknownSources  = counter("sip_unknown_source_total", "Datagrams of sources that are no trunk, dropped unread.", "realm")
	sipParseErrors     = counter("sip_parse_errors_total", "Malformed SIP messages, answered or not.", "realm")
	sipStrays          = counter("sip_strays_total", "Well-formed SIP messages that belong to nothing here.", "realm")
	sipOversize        = counter("sip_oversize_total", "SIP messages sent over UDP that are longer than 1300 bytes.", "realm")
	sipSocketErrors    = counter("sip_socket_errors_total", "Reads and sends that the kernel refused.", "realm", "direction")
	sipLegs            = gauge("sip_legs", "SIP dialogs now.", "realm")
	sipTransactions    = gauge("sip_transactions", "SIP transactions now; they outlive their leg by up to 32 s.", "realm")

	cdrWritten     = counter("cdr_written_total", "Call detail records on disk.")
	cdrWriteErrors = counter("cdr_write_errors_total", "Writes of call detail records that failed and were tried again.")
	cdrDropped     = counter("cdr_dropped_total", "Call detail records lost because the disk stayed unusable.")
	cdrQueued      = gauge("cdr_queued", "Call detail records that wait for the disk.")

	collectionErrors = counter("collection_errors_total", "Sources that could not be read in a scrape since start.")
)

// families lists all of the above, for Describe.
var families = []family{
	buildInfo,
	callsActive, callsTotal, callsAnswered, callsFailed, callsEnded,
	trunkActive, trunkAttempts, trunkCalls, trunkMaxCalls, trunkInService,
	trunkState, trunkChanges, trunkMaxRate, trunkRefused, trunkASR, trunkNER, trunkPDD, trunkACD, trunkTarget, trunkRTT,
	trunkOutcomes, trunkProbeFailures, groupShare, groupMultiplier,
	realmUp, realmState, realmObjects, realmRepairs, realmLeaks,
	tunnelInfo, tunnelUp, tunnelActive, tunnelState, tunnelCause, tunnelEstablished,
	tunnelRekeys, tunnelBytes, tunnelPackets, tunnelErrors, tunnelFailures, tunnelDPD, monitorRTT, monitorMissed,
	mediaPackets, mediaBytes, mediaLost, mediaReordered, mediaDuplicated, mediaRefused, mediaOutOfPolicy, mediaRemoteLost,
	mediaLegs, mediaMOS, mediaMOSMin, mediaJitter, mediaJitterMax, mediaRTT, mediaRTTMax,
	engineInfo, engineFlows, enginePackets, engineExits, engineEvents, attachment, portsInUse,
	sipRequests, sipResponses, sipRetransmissions, sipUnknownSources, sipParseErrors, sipStrays, sipOversize, sipSocketErrors,
	sipLegs, sipTransactions,
	cdrWritten, cdrWriteErrors, cdrDropped, cdrQueued,
	collectionErrors,
}
