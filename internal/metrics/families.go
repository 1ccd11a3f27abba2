package metrics

import "github.com/prometheus/client_golang/prometheus"

// Family is one metric: every value with its name.
type Family struct {
	Name, Help string
	Labels     []string

	kind prometheus.ValueType
	desc *prometheus.Desc
}

// Type is "counter" or "gauge".
func (f *Family) Type() string {
	if f.kind == prometheus.CounterValue {
		return "counter"
	}
	return "gauge"
}

// Families are all metrics of the daemon, in the order of the documentation.
var Families []*Family

func gauge(name, help string, labels ...string) *Family {
	return family(prometheus.GaugeValue, name, help, labels)
}

func counter(name, help string, labels ...string) *Family {
	return family(prometheus.CounterValue, name, help, labels)
}

func family(kind prometheus.ValueType, name, help string, labels []string) *Family {
	f := &Family{
		Name: name, Help: help, Labels: labels,
		kind: kind, desc: prometheus.NewDesc(name, help, labels, nil),
	}
	Families = append(Families, f)
	return f
}

var (
	up          = gauge("pwd_healthy", "1 if the site is healthy, 0 if pwctl status names problems.", "site")
	problems    = gauge("pwd_problems", "Problems that pwctl status names.")
	buildInfo   = gauge("pwd_build_info", "Always 1; the labels say which build runs, and with which datapath.", "version", "goversion", "datapath")
	startTime   = gauge("pwd_start_time_seconds", "When the daemon started.")
	generation  = gauge("pwd_config_generation", "Number of the topology in force, 0 before the first.")
	applied     = gauge("pwd_config_applied_timestamp_seconds", "When the topology in force was applied.")
	fileDiffers = gauge("pwd_config_file_differs", "1 if the topology file is not the topology in force.")
	drift       = counter("pwd_drift_total", "How often something that others had changed about links, bridges or programs was found, by what came of setting it again.", "result")
	contested   = gauge("pwd_drift_contested", "Things that something else keeps changing, and that are put back rarely for that.")
	confirmBy   = gauge("pwd_config_confirm_deadline_timestamp_seconds", "When the topology before is put back unless this one is confirmed; absent if nothing waits.")

	tunnelState          = gauge("pwd_tunnel_state", "1 for the state that the control connection is in, 0 for the others.", "tunnel", "peer", "state")
	tunnelSince          = gauge("pwd_tunnel_state_duration_seconds", "For how long the control connection has been in its state.", "tunnel", "peer")
	tunnelHeard          = gauge("pwd_tunnel_silence_seconds", "For how long nothing has been heard of the peer, data included.", "tunnel", "peer")
	tunnelRTT            = gauge("pwd_tunnel_rtt_seconds", "Smoothed time from a control message to its acknowledgment; absent until measured.", "tunnel", "peer")
	tunnelPathMTU        = gauge("pwd_tunnel_path_mtu_bytes", "Longest packet to the peer that is not fragmented, also where only probes have shown it; absent if unknown.", "tunnel", "peer")
	tunnelRetransmits    = counter("pwd_tunnel_retransmits_total", "Control messages that were sent again, since the connection began.", "tunnel", "peer")
	tunnelUnacknowledged = gauge("pwd_tunnel_unacknowledged_messages", "Control messages that the peer has yet to acknowledge, those that wait for its window included.", "tunnel", "peer")
	tunnelSessions       = gauge("pwd_tunnel_sessions", "Sessions of the control connection.", "tunnel", "peer")

	sessionState = gauge("pwd_session_state", "1 for the state that the session is in, 0 for the others.", "tunnel", "pseudowire", "peer", "state")

	pseudowireState = gauge("pwd_pseudowire_state", "1 for the state that the pseudowire is in, 0 for the others.", "pseudowire", "peer", "state")
	pseudowireSince = gauge("pwd_pseudowire_state_duration_seconds", "For how long the pseudowire has been in its state.", "pseudowire", "peer")
	receivePackets  = counter("pwd_pseudowire_receive_packets_total", "Frames from the peer, since its session began.", "pseudowire", "peer")
	receiveBytes    = counter("pwd_pseudowire_receive_bytes_total", "Octets of these frames, without what they travel in.", "pseudowire", "peer")
	transmitPackets = counter("pwd_pseudowire_transmit_packets_total", "Frames to the peer, since its session began.", "pseudowire", "peer")
	transmitBytes   = counter("pwd_pseudowire_transmit_bytes_total", "Octets of these frames, without what they travel in.", "pseudowire", "peer")
	suppressed      = counter("pwd_pseudowire_suppressed_requests_total", "ARP requests and neighbour solicitations that the pseudowire did not carry, as the site answers them.", "pseudowire", "peer")
	pseudowireDrops = counter("pwd_pseudowire_drops_total", "Frames of the pseudowire that were dropped, by reason.", "pseudowire", "peer", "reason")

	drops = counter("pwd_datapath_drops_total", "Frames that were dropped and belong to no pseudowire, by reason.", "reason")

	controlReceived    = counter("pwd_control_receive_messages_total", "Control messages received, from peers and from anybody else.")
	controlTransmitted = counter("pwd_control_transmit_messages_total", "Control messages sent, without those sent again.")
	controlRetransmits = counter("pwd_control_retransmits_total", "Control messages that were sent again.")
	controlHellos      = counter("pwd_control_hellos_total", "HELLO messages sent.")
	controlLost        = counter("pwd_control_connections_lost_total", "Control connections whose peer answered no more.")
	controlReordered   = counter("pwd_control_reordered_total", "Control messages that came before earlier ones, and were kept until those came.")
	controlDiscards    = counter("pwd_control_discards_total", "Control messages that were not acted upon, by reason.", "reason")

	classRate    = gauge("pwd_class_rate_bytes_per_second", "Guaranteed rate of the class, 0 for none.", "class")
	classCeiling = gauge("pwd_class_ceiling_bytes_per_second", "Most that the class may use, 0 for no limit.", "class")
	classPackets = counter("pwd_class_packets_total", "Outer packets of the class.", "class")
	classBytes   = counter("pwd_class_bytes_total", "Octets of these packets on the link, its header included.", "class")
	classDrops   = counter("pwd_class_drops_total", "Packets that its queue dropped.", "class")
	classBacklog = gauge("pwd_class_backlog_bytes", "Octets that wait in its queue.", "class")

	shapedPackets = counter("pwd_shaped_tunnel_packets_total", "Outer packets that the shaped tunnel has sent through the interface.", "tunnel", "peer", "class", "interface")
	shapedBytes   = counter("pwd_shaped_tunnel_bytes_total", "Octets of these packets on the link, its header included.", "tunnel", "peer", "class", "interface")
	shapedDrops   = counter("pwd_shaped_tunnel_drops_total", "Packets that the tunnel's queue dropped, by reason.", "tunnel", "peer", "class", "interface", "reason")
	shapedMarks   = counter("pwd_shaped_tunnel_marks_total", "Packets that got a congestion mark (ECN) in the tunnel's queue.", "tunnel", "peer", "class", "interface")
	shapedBacklog = gauge("pwd_shaped_tunnel_backlog_bytes", "Octets that wait in the tunnel's queue.", "tunnel", "peer", "class", "interface")
)
