package control

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/xml"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// sentPacket is a control message that was sent.
type sentPacket struct {
	at       time.Time
	over     l2tpv3.Encapsulation
	from, to netip.AddrPort
	payload  []byte
}

// pcap is a capture file of raw IP packets.
func pcap(all []sentPacket) (file []byte) {
	le := binary.LittleEndian
	for _, v := range []uint32{0xa1b2c3d4, 4<<16 | 2, 0, 0, 65535, 101} {
		file = le.AppendUint32(file, v)
	}
	for _, s := range all {
		b := s.packet()
		for _, v := range []uint32{uint32(s.at.Unix()), uint32(s.at.Nanosecond() / 1000), uint32(len(b)), uint32(len(b))} {
			file = le.AppendUint32(file, v)
		}
		file = append(file, b...)
	}
	return file
}

// packet is the message in an IP packet.
func (s *sentPacket) packet() []byte {
	be := binary.BigEndian
	payload, protocol := append(l2tpv3.AppendControlPrefix(nil, s.over), s.payload...), byte(l2tpv3.Protocol)
	from, to := s.from.Addr().AsSlice(), s.to.Addr().AsSlice()
	if s.over == l2tpv3.UDP {
		protocol = 17
		udp := be.AppendUint16(be.AppendUint16(nil, s.from.Port()), s.to.Port())
		udp = be.AppendUint16(be.AppendUint16(udp, uint16(8+len(payload))), 0)
		payload = append(udp, payload...)
		pseudo := slices.Concat(from, to, []byte{0, protocol}, be.AppendUint16(nil, uint16(len(payload))), payload)
		be.PutUint16(payload[6:], checksum(pseudo))
	}
	ip := []byte{0x60, 0, 0, 0, byte(len(payload) >> 8), byte(len(payload)), protocol, 64}
	if s.from.Addr().Is4() {
		ip = []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0}
		be.PutUint16(ip[2:], uint16(20+len(payload)))
		be.PutUint16(ip[10:], checksum(slices.Concat(ip, from, to)))
	}
	return slices.Concat(ip, from, to, payload)
}

// checksum is the Internet's (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 != 0 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// dissected is what tshark makes of a message.
type dissected struct {
	fields     []string // name=value, in the order of the octets
	incorrect  int      // digests
	complaints []string
}

// node is one field of PDML, tshark's XML.
type node struct {
	Name   string `xml:"name,attr"`
	Show   string `xml:"show,attr"`
	Value  string `xml:"value,attr"`
	Fields []node `xml:"field"`
}

// dissect has tshark read the messages. It starts it once: that takes a second.
func dissect(t *testing.T, secret string, all []sentPacket) []dissected {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("needs tshark: ", err)
		}
		t.Skip("needs tshark: ", err)
	}
	name := filepath.Join(t.TempDir(), "sent.pcap")
	if err := os.WriteFile(name, pcap(all), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, "tshark", "-n", "-r", name, "-T", "pdml", "-o", "l2tp.shared_secret:"+secret,
		"-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE")
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, complaints.String())
	}
	var read struct {
		Packets []struct {
			Protocols []node `xml:"proto"`
		} `xml:"packet"`
	}
	if err := xml.Unmarshal(out, &read); err != nil {
		t.Fatal("tshark's PDML: ", err)
	}
	if len(read.Packets) != len(all) {
		t.Fatalf("tshark read %d packets of %d: %s", len(read.Packets), len(all), complaints.String())
	}
	messages := make([]dissected, len(all))
	for i, p := range read.Packets {
		for _, n := range p.Protocols {
			messages[i].take(&n, n.Name == "l2tp")
		}
	}
	return messages
}

// take goes through a field and what is in it.
func (d *dissected) take(n *node, l2tp bool) {
	switch {
	case n.Name == "l2tp.incorrect_digest":
		d.incorrect++
	case n.Name == "_ws.malformed":
		d.complaints = append(d.complaints, "malformed")
	case n.Name == "_ws.expert.message":
		// It remarks upon AVPs of which it knows the name only.
		if n.Show != "Vendor-Specific AVP data" && n.Show != "Incorrect Digest" {
			d.complaints = append(d.complaints, n.Show)
		}
	case !l2tp:
	case n.Name == "" && strings.HasSuffix(n.Show, " AVP"):
		d.fields = append(d.fields, "AVP="+n.Value)
	case n.Name == "" && n.Show == "Vendor-Specific AVP data":
		d.fields = append(d.fields, "octets="+n.Value)
	case slices.Contains(notCompared, n.Name) || len(n.Fields) > 0 && n.Name == "":
	case strings.HasPrefix(n.Name, "l2tp."):
		d.fields = append(d.fields, n.Name+"="+n.Show)
	}
	for i := range n.Fields {
		d.take(&n.Fields[i], l2tp)
	}
}

// notCompared is what contains other fields, is in each message, or is a remark.
var notCompared = []string{"", "l2tp.flags", "l2tp.type", "l2tp.length_bit", "l2tp.seq_bit", "l2tp.sid", "l2tp.vendor_specific_avp_data"}
