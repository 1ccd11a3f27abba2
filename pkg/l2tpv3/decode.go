package l2tpv3

// How the value of each AVP is read, its length and content checked already. The
// octets are not copied.

func decode16[T interface {
	~uint16
	AVP
}](v []byte) AVP {
	return T(be.Uint16(v))
}

func decode32[T interface {
	~uint32
	AVP
}](v []byte) AVP {
	return T(be.Uint32(v))
}

func decode64[T interface {
	~uint64
	AVP
}](v []byte) AVP {
	return T(be.Uint64(v))
}

func decodeString[T interface {
	~string
	AVP
}](v []byte) AVP {
	return T(v)
}

func decodeOctets[T interface {
	~[]byte
	AVP
}](v []byte) AVP {
	return T(v)
}

func decodeMessageType(v []byte) AVP { return MessageType(be.Uint16(v)) }

func decodeResultCode(v []byte) AVP {
	r := ResultCode{Result: be.Uint16(v)}
	if len(v) >= 4 {
		r.HasError, r.Error, r.Message = true, ErrorCode(be.Uint16(v[2:])), string(v[4:])
	}
	return r
}

func decodeMessageDigest(v []byte) AVP {
	return MessageDigest{Algorithm: DigestAlgorithm(v[0]), Digest: v[1:]}
}

func decodeCircuitErrors(v []byte) AVP {
	c := CircuitErrors{Reserved: be.Uint16(v), Short: len(v) == 18}
	v = v[2:]
	if !c.Short {
		c.CRC, c.Framing = be.Uint32(v), be.Uint32(v[4:])
		v = v[8:]
	}
	c.HardwareOverruns, c.BufferOverruns = be.Uint32(v), be.Uint32(v[4:])
	c.Timeouts, c.Alignment = be.Uint32(v[8:]), be.Uint32(v[12:])
	return c
}

func decodeExtendedVendorID(v []byte) AVP {
	return ExtendedVendorID{Vendor: be.Uint32(v), Type: be.Uint16(v[4:]), Value: v[6:]}
}

func decodeCapabilities(v []byte) AVP {
	c := make(PseudowireCapabilities, len(v)/2)
	for i := range c {
		c[i] = PseudowireType(be.Uint16(v[2*i:]))
	}
	return c
}

func decodeFailoverCapability(v []byte) AVP {
	return FailoverCapability{Flags: be.Uint16(v), RecoveryTime: be.Uint32(v[2:])}
}

func decodeTunnelRecovery(v []byte) AVP {
	return TunnelRecovery{be.Uint16(v), be.Uint32(v[2:]), be.Uint32(v[6:])}
}

func decodeSuggestedControlSequence(v []byte) AVP {
	return SuggestedControlSequence{be.Uint16(v), be.Uint16(v[2:]), be.Uint16(v[4:])}
}

func decodeFailoverSessionState(v []byte) AVP {
	return FailoverSessionState{be.Uint16(v), be.Uint32(v[2:]), be.Uint32(v[6:])}
}

func decodeATMAlarmStatus(v []byte) AVP {
	return ATMAlarmStatus{be.Uint16(v), be.Uint16(v[2:])}
}

func decodeConnectSpeedUpdate(v []byte) AVP {
	return ConnectSpeedUpdate{be.Uint32(v), be.Uint64(v[4:]), be.Uint64(v[12:])}
}

func decodeDiscriminators(v []byte) AVP {
	d := make(SBFDTargetDiscriminator, len(v)/4)
	for i := range d {
		d[i] = be.Uint32(v[4*i:])
	}
	return d
}
