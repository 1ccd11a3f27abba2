package netlab

import (
	"encoding/binary"
	"fmt"
	"io"
)

// WritePcap writes frames as a pcap file with nanoseconds, for tshark and its like.
func WritePcap(w io.Writer, frames []Frame) error {
	order := binary.LittleEndian
	b := order.AppendUint32(nil, 0xa1b23c4d) // magic of the nanosecond format
	b = order.AppendUint16(b, 2)             // version 2.4
	b = order.AppendUint16(b, 4)
	b = append(b, make([]byte, 8)...)       // time zone and accuracy, both always 0
	b = order.AppendUint32(b, largestFrame) // no frame is longer
	b = order.AppendUint32(b, 1)            // LINKTYPE_ETHERNET
	for _, f := range frames {
		b = order.AppendUint32(b, uint32(f.Time.Unix()))
		b = order.AppendUint32(b, uint32(f.Time.Nanosecond()))
		b = order.AppendUint32(b, uint32(len(f.Data)))
		b = order.AppendUint32(b, uint32(len(f.Data)))
		b = append(b, f.Data...)
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("netlab: write a capture: %w", err)
	}
	return nil
}
