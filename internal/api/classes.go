package api

// Class is one class of service.
type Class struct {
	// Name is "-" for tunnels without a class that share what their pair of sites may send.
	Name string `json:"name"`
	// DSCP is that of the outer header of data packets, 0 to 63.
	DSCP uint8 `json:"dscp"`
	// DSCPFrom says how it comes from the frame, empty where it does not: "copy", or
	// "by PCP" and the DSCPs for each.
	DSCPFrom string `json:"dscpFrom,omitempty"`
	// Rate and Ceiling are in bits a second, 0 for none.
	Rate     uint64 `json:"rate,omitempty"`
	Ceiling  uint64 `json:"ceiling,omitempty"`
	Priority uint8  `json:"priority,omitempty"`
	Queue    uint32 `json:"queue,omitempty"`
	// The rest is of all tunnels of the class together, since they were shaped: outer
	// packets and their octets, the link's header included.
	Octets uint64 `json:"octets,omitempty"`
	Frames uint64 `json:"frames,omitempty"`
	Drops  uint64 `json:"drops,omitempty"`
	// BacklogOctets and BacklogFrames wait at the moment.
	BacklogOctets uint64 `json:"backlogOctets,omitempty"`
	BacklogFrames uint64 `json:"backlogFrames,omitempty"`
	// DropsByReason has Drops apart: "queue-full", and "waited-too-long", where the queue is
	// one that looks at that. Marked packets (ECN) were not dropped.
	DropsByReason map[string]uint64 `json:"dropsByReason,omitempty"`
	Marked        uint64            `json:"marked,omitempty"`
	// Achieved is what was sent of late, in bits a second: between when it was asked for
	// before and now, two seconds at least. 0 where that is not known yet.
	Achieved uint64 `json:"achieved,omitempty"`
	// Tunnels are those that are shaped, each with its own.
	Tunnels []ClassTunnel `json:"tunnels,omitempty"`
}

// ClassTunnel is what one tunnel, towards one peer, has of a class.
type ClassTunnel struct {
	Tunnel      string   `json:"tunnel"`
	Peer        string   `json:"peer"`
	Interface   string   `json:"interface"`
	Pseudowires []string `json:"pseudowires,omitempty"`

	Octets        uint64            `json:"octets"`
	Frames        uint64            `json:"frames"`
	Drops         uint64            `json:"drops"`
	DropsByReason map[string]uint64 `json:"dropsByReason,omitempty"`
	Marked        uint64            `json:"marked,omitempty"`
	BacklogOctets uint64            `json:"backlogOctets"`
	BacklogFrames uint64            `json:"backlogFrames"`
	Achieved      uint64            `json:"achieved,omitempty"`
	// DelayMicroseconds is how long what waits will wait, at the rate achieved.
	DelayMicroseconds uint64 `json:"delayMicroseconds,omitempty"`
}
