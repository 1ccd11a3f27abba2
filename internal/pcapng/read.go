package pcapng

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// linkEthernet is LINKTYPE_ETHERNET.
const linkEthernet = 1

// ErrFormat says that a file is no capture of Ethernet frames.
var ErrFormat = errors.New("this is no pcap or pcapng file with Ethernet frames")

// Frames reads the Ethernet frames of a pcap or pcapng file, up to most of them; those of
// other kinds of links are left out. A file that ends in the middle of a packet gives those
// before it.
func Frames(r io.Reader, most int) ([][]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, 64<<20))
	if err != nil {
		return nil, err
	}
	if len(data) < 24 {
		return nil, ErrFormat
	}
	var frames [][]byte
	switch binary.LittleEndian.Uint32(data) {
	case 0xa1b2c3d4, 0xa1b23c4d:
		frames, err = classic(data, binary.LittleEndian, most)
	case 0xd4c3b2a1, 0x4d3cb2a1:
		frames, err = classic(data, binary.BigEndian, most)
	case 0x0a0d0d0a:
		frames, err = blocks(data, most)
	default:
		return nil, ErrFormat
	}
	if err == nil && len(frames) == 0 {
		return nil, fmt.Errorf("%w: there are none in it", ErrFormat)
	}
	return frames, err
}

// classic reads a pcap file.
func classic(data []byte, order binary.ByteOrder, most int) (frames [][]byte, err error) {
	if order.Uint32(data[20:])&0x0fffffff != linkEthernet {
		return nil, ErrFormat
	}
	for data = data[24:]; len(data) >= 16 && len(frames) < most; {
		n := order.Uint32(data[8:])
		if uint64(n) > uint64(len(data)-16) {
			break
		}
		frames = append(frames, data[16:16+n])
		data = data[16+n:]
	}
	return frames, nil
}

// blocks reads a pcapng file.
func blocks(data []byte, most int) (frames [][]byte, err error) {
	var order binary.ByteOrder = binary.LittleEndian
	var ethernet []bool // by interface
	for len(data) >= 12 && len(frames) < most {
		kind := order.Uint32(data)
		if kind == blockSection && len(data) >= 16 {
			order, ethernet = binary.LittleEndian, nil
			if binary.LittleEndian.Uint32(data[8:]) != byteOrderMagic {
				order = binary.BigEndian
			}
		}
		n := order.Uint32(data[4:])
		if n < 12 || uint64(n) > uint64(len(data)) {
			break
		}
		body := data[8 : n-4]
		data = data[n:]
		switch {
		case kind == blockInterface && len(body) >= 2:
			ethernet = append(ethernet, order.Uint16(body) == linkEthernet)
		case kind == blockPacket && len(body) >= 20:
			i, size := order.Uint32(body), order.Uint32(body[12:])
			if uint64(i) < uint64(len(ethernet)) && ethernet[i] && uint64(size) <= uint64(len(body)-20) {
				frames = append(frames, body[20:20+size])
			}
		}
	}
	return frames, nil
}
