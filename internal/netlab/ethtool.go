package netlab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Feature turns offloads of the link on or off. The pattern (see path.Match)
// names them as `ethtool -k` does in the kernel: "tx-*-segmentation", "rx-gro",
// "tx-checksum-*", "rx-gro-list". One that matches nothing that can be changed is an error.
func (l *Link) Feature(pattern string, on bool) *Link {
	if l.NS.lab.Err() != nil {
		return l
	}
	if err := l.NS.Do(func() error { return setFeatures(l.Name, pattern, on) }); err != nil {
		l.NS.lab.fail("set features %s of %s in %s: %w", pattern, l.Name, l.NS.Name, err)
	}
	return l
}

// Features are the link's offloads that are on, by name.
func (l *Link) Features() (map[string]bool, error) {
	on := map[string]bool{}
	err := l.NS.Do(func() error {
		return withEthtool(l.Name, func(call ethtoolCall) error {
			names, err := featureNames(call)
			if err != nil {
				return err
			}
			blocks, err := getFeatures(call, len(names))
			if err != nil {
				return err
			}
			for i, name := range names {
				if blocks[i/32].active&(1<<(i%32)) != 0 {
					on[name] = true
				}
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: features of %s in %s: %w", l.Name, l.NS.Name, err)
	}
	return on, nil
}

// The layouts of linux/ethtool.h, in the machine's byte order.
const (
	ethSetFeatures   = 4  // ETH_SS_FEATURES
	ethStringLength  = 32 // ETH_GSTRING_LEN
	featureBlockSize = 16 // struct ethtool_get_features_block
)

// featureBlock is 32 features of struct ethtool_get_features_block.
type featureBlock struct{ available, requested, active, neverChanged uint32 }

// ethtoolCall carries out one ethtool command, whose structure starts with its number.
type ethtoolCall func(request []byte) error

// withEthtool gives f the ethtool commands of an interface of the calling thread's namespace.
func withEthtool(name string, f func(ethtoolCall) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return f(func(request []byte) error {
		// struct ifreq: the name, then a union of 24 octets that starts with the pointer.
		var ifreq struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(ifreq.name[:unix.IFNAMSIZ-1], name)
		ifreq.data = unsafe.Pointer(&request[0])
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifreq))); errno != 0 {
			return errno
		}
		return nil
	})
}

func featureNames(call ethtoolCall) ([]string, error) {
	order := binary.NativeEndian
	info := make([]byte, 20) // struct ethtool_sset_info with one count
	order.PutUint32(info, unix.ETHTOOL_GSSET_INFO)
	order.PutUint64(info[8:], 1<<ethSetFeatures)
	if err := call(info); err != nil {
		return nil, fmt.Errorf("count features: %w", err)
	}
	n := int(order.Uint32(info[16:]))
	table := make([]byte, 12+n*ethStringLength) // struct ethtool_gstrings
	order.PutUint32(table, unix.ETHTOOL_GSTRINGS)
	order.PutUint32(table[4:], ethSetFeatures)
	order.PutUint32(table[8:], uint32(n))
	if err := call(table); err != nil {
		return nil, fmt.Errorf("list features: %w", err)
	}
	names := make([]string, n)
	for i := range names {
		name, _, _ := bytes.Cut(table[12+i*ethStringLength:12+(i+1)*ethStringLength], []byte{0})
		names[i] = string(name)
	}
	return names, nil
}

func getFeatures(call ethtoolCall, n int) ([]featureBlock, error) {
	order := binary.NativeEndian
	blocks := make([]featureBlock, (n+31)/32)
	request := make([]byte, 8+len(blocks)*featureBlockSize) // struct ethtool_gfeatures
	order.PutUint32(request, unix.ETHTOOL_GFEATURES)
	order.PutUint32(request[4:], uint32(len(blocks)))
	if err := call(request); err != nil {
		return nil, fmt.Errorf("read features: %w", err)
	}
	for i := range blocks {
		b := request[8+i*featureBlockSize:]
		blocks[i] = featureBlock{order.Uint32(b), order.Uint32(b[4:]), order.Uint32(b[8:]), order.Uint32(b[12:])}
	}
	return blocks, nil
}

func setFeatures(name, pattern string, on bool) error {
	order := binary.NativeEndian
	return withEthtool(name, func(call ethtoolCall) error {
		names, err := featureNames(call)
		if err != nil {
			return err
		}
		blocks, err := getFeatures(call, len(names))
		if err != nil {
			return err
		}
		request := make([]byte, 8+len(blocks)*8) // struct ethtool_sfeatures: valid and requested, per block
		order.PutUint32(request, unix.ETHTOOL_SFEATURES)
		order.PutUint32(request[4:], uint32(len(blocks)))
		matched := false
		for i, feature := range names {
			ok, err := path.Match(pattern, feature)
			if err != nil {
				return err
			}
			bit := uint32(1) << (i % 32)
			// Some can never be changed, and NETNS_LOCAL and the like are no offloads.
			if !ok || blocks[i/32].available&bit == 0 {
				continue
			}
			matched = true
			b := request[8+i/32*8:]
			order.PutUint32(b, order.Uint32(b)|bit)
			if on {
				order.PutUint32(b[4:], order.Uint32(b[4:])|bit)
			}
		}
		if !matched {
			return fmt.Errorf("no feature that can be changed is named so")
		}
		return call(request)
	})
}
