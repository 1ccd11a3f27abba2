package l2tpv3

import "encoding/binary"

// How each AVP is named by number and written; registry.go has how it is read.

var be = binary.BigEndian

func (MessageType) AVPType() AVPType                   { return AVPMessageType }
func (ResultCode) AVPType() AVPType                    { return AVPResultCode }
func (ProtocolVersion) AVPType() AVPType               { return AVPProtocolVersion }
func (FramingCapabilities) AVPType() AVPType           { return AVPFramingCapabilities }
func (BearerCapabilities) AVPType() AVPType            { return AVPBearerCapabilities }
func (TieBreaker) AVPType() AVPType                    { return AVPTieBreaker }
func (FirmwareRevision) AVPType() AVPType              { return AVPFirmwareRevision }
func (HostName) AVPType() AVPType                      { return AVPHostName }
func (VendorName) AVPType() AVPType                    { return AVPVendorName }
func (AssignedTunnelID) AVPType() AVPType              { return AVPAssignedTunnelID }
func (ReceiveWindowSize) AVPType() AVPType             { return AVPReceiveWindowSize }
func (Challenge) AVPType() AVPType                     { return AVPChallenge }
func (ChallengeResponse) AVPType() AVPType             { return AVPChallengeResponse }
func (SerialNumber) AVPType() AVPType                  { return AVPSerialNumber }
func (PhysicalChannelID) AVPType() AVPType             { return AVPPhysicalChannelID }
func (CircuitErrors) AVPType() AVPType                 { return AVPCircuitErrors }
func (RandomVector) AVPType() AVPType                  { return AVPRandomVector }
func (SequencingRequired) AVPType() AVPType            { return AVPSequencingRequired }
func (ControlConnectionDS) AVPType() AVPType           { return AVPControlConnectionDS }
func (SessionDS) AVPType() AVPType                     { return AVPSessionDS }
func (ExtendedVendorID) AVPType() AVPType              { return AVPExtendedVendorID }
func (MessageDigest) AVPType() AVPType                 { return AVPMessageDigest }
func (RouterID) AVPType() AVPType                      { return AVPRouterID }
func (AssignedControlConnectionID) AVPType() AVPType   { return AVPAssignedControlConnectionID }
func (PseudowireCapabilities) AVPType() AVPType        { return AVPPseudowireCapabilities }
func (LocalSessionID) AVPType() AVPType                { return AVPLocalSessionID }
func (RemoteSessionID) AVPType() AVPType               { return AVPRemoteSessionID }
func (AssignedCookie) AVPType() AVPType                { return AVPAssignedCookie }
func (RemoteEndID) AVPType() AVPType                   { return AVPRemoteEndID }
func (PseudowireType) AVPType() AVPType                { return AVPPseudowireType }
func (L2SpecificSublayer) AVPType() AVPType            { return AVPL2SpecificSublayer }
func (DataSequencing) AVPType() AVPType                { return AVPDataSequencing }
func (CircuitStatus) AVPType() AVPType                 { return AVPCircuitStatus }
func (PreferredLanguage) AVPType() AVPType             { return AVPPreferredLanguage }
func (Nonce) AVPType() AVPType                         { return AVPNonce }
func (TxConnectSpeed) AVPType() AVPType                { return AVPTxConnectSpeed }
func (RxConnectSpeed) AVPType() AVPType                { return AVPRxConnectSpeed }
func (FailoverCapability) AVPType() AVPType            { return AVPFailoverCapability }
func (TunnelRecovery) AVPType() AVPType                { return AVPTunnelRecovery }
func (SuggestedControlSequence) AVPType() AVPType      { return AVPSuggestedControlSequence }
func (FailoverSessionState) AVPType() AVPType          { return AVPFailoverSessionState }
func (FrameRelayHeaderLength) AVPType() AVPType        { return AVPFrameRelayHeaderLength }
func (ATMMaximumConcatenatedCells) AVPType() AVPType   { return AVPATMMaximumConcatenatedCells }
func (OAMEmulationRequired) AVPType() AVPType          { return AVPOAMEmulationRequired }
func (ATMAlarmStatus) AVPType() AVPType                { return AVPATMAlarmStatus }
func (AttachmentGroupID) AVPType() AVPType             { return AVPAttachmentGroupID }
func (LocalEndID) AVPType() AVPType                    { return AVPLocalEndID }
func (InterfaceMTU) AVPType() AVPType                  { return AVPInterfaceMTU }
func (FCSRetention) AVPType() AVPType                  { return AVPFCSRetention }
func (MaximumReceiveUnit) AVPType() AVPType            { return AVPMaximumReceiveUnit }
func (MaximumReassembledReceiveUnit) AVPType() AVPType { return AVPMaximumReassembledReceiveUnit }
func (VCCVCapability) AVPType() AVPType                { return AVPVCCVCapability }
func (ConnectSpeedUpdate) AVPType() AVPType            { return AVPConnectSpeedUpdate }
func (ConnectSpeedUpdateEnable) AVPType() AVPType      { return AVPConnectSpeedUpdateEnable }
func (TDMPseudowire) AVPType() AVPType                 { return AVPTDMPseudowire }
func (RTP) AVPType() AVPType                           { return AVPRTP }
func (PseudowireSwitchingPoint) AVPType() AVPType      { return AVPPseudowireSwitchingPoint }
func (SBFDTargetDiscriminator) AVPType() AVPType       { return AVPSBFDTargetDiscriminator }
func (ECNCapability) AVPType() AVPType                 { return AVPECNCapability }

// AVPType is the attribute's number under the AVP's own Vendor.
func (r RawAVP) AVPType() AVPType { return r.Type }

func put16[T ~uint16](b []byte, v T) []byte { return be.AppendUint16(b, uint16(v)) }
func put32[T ~uint32](b []byte, v T) []byte { return be.AppendUint32(b, uint32(v)) }
func put64[T ~uint64](b []byte, v T) []byte { return be.AppendUint64(b, uint64(v)) }

func (v MessageType) appendValue(b []byte) []byte                 { return put16(b, v) }
func (v FramingCapabilities) appendValue(b []byte) []byte         { return put32(b, v) }
func (v BearerCapabilities) appendValue(b []byte) []byte          { return put32(b, v) }
func (v TieBreaker) appendValue(b []byte) []byte                  { return append(b, v[:]...) }
func (v FirmwareRevision) appendValue(b []byte) []byte            { return put16(b, v) }
func (v HostName) appendValue(b []byte) []byte                    { return append(b, v...) }
func (v VendorName) appendValue(b []byte) []byte                  { return append(b, v...) }
func (v AssignedTunnelID) appendValue(b []byte) []byte            { return put16(b, v) }
func (v ReceiveWindowSize) appendValue(b []byte) []byte           { return put16(b, v) }
func (v Challenge) appendValue(b []byte) []byte                   { return append(b, v...) }
func (v ChallengeResponse) appendValue(b []byte) []byte           { return append(b, v[:]...) }
func (v SerialNumber) appendValue(b []byte) []byte                { return put32(b, v) }
func (v PhysicalChannelID) appendValue(b []byte) []byte           { return put32(b, v) }
func (v RandomVector) appendValue(b []byte) []byte                { return append(b, v...) }
func (v ControlConnectionDS) appendValue(b []byte) []byte         { return put16(b, v) }
func (v SessionDS) appendValue(b []byte) []byte                   { return put16(b, v) }
func (v RouterID) appendValue(b []byte) []byte                    { return put32(b, v) }
func (v AssignedControlConnectionID) appendValue(b []byte) []byte { return put32(b, v) }
func (v LocalSessionID) appendValue(b []byte) []byte              { return put32(b, v) }
func (v RemoteSessionID) appendValue(b []byte) []byte             { return put32(b, v) }
func (v AssignedCookie) appendValue(b []byte) []byte              { return append(b, v...) }
func (v RemoteEndID) appendValue(b []byte) []byte                 { return append(b, v...) }
func (v PseudowireType) appendValue(b []byte) []byte              { return put16(b, v) }
func (v L2SpecificSublayer) appendValue(b []byte) []byte          { return put16(b, v) }
func (v DataSequencing) appendValue(b []byte) []byte              { return put16(b, v) }
func (v CircuitStatus) appendValue(b []byte) []byte               { return put16(b, v) }
func (v PreferredLanguage) appendValue(b []byte) []byte           { return append(b, v...) }
func (v Nonce) appendValue(b []byte) []byte                       { return append(b, v...) }
func (v TxConnectSpeed) appendValue(b []byte) []byte              { return put64(b, v) }
func (v RxConnectSpeed) appendValue(b []byte) []byte              { return put64(b, v) }
func (v FrameRelayHeaderLength) appendValue(b []byte) []byte      { return put16(b, v) }
func (v ATMMaximumConcatenatedCells) appendValue(b []byte) []byte { return put16(b, v) }
func (v OAMEmulationRequired) appendValue(b []byte) []byte        { return b }
func (v AttachmentGroupID) appendValue(b []byte) []byte           { return append(b, v...) }
func (v LocalEndID) appendValue(b []byte) []byte                  { return append(b, v...) }
func (v InterfaceMTU) appendValue(b []byte) []byte                { return put16(b, v) }
func (v FCSRetention) appendValue(b []byte) []byte                { return put16(b, v) }
func (v MaximumReceiveUnit) appendValue(b []byte) []byte          { return put16(b, v) }
func (v MaximumReassembledReceiveUnit) appendValue(b []byte) []byte {
	return put16(b, v)
}
func (v ConnectSpeedUpdateEnable) appendValue(b []byte) []byte { return b }
func (v PseudowireSwitchingPoint) appendValue(b []byte) []byte { return append(b, v...) }
func (v SequencingRequired) appendValue(b []byte) []byte       { return b }
func (v ECNCapability) appendValue(b []byte) []byte            { return b }
func (r RawAVP) appendValue(b []byte) []byte                   { return append(b, r.Value...) }

func (v ProtocolVersion) appendValue(b []byte) []byte {
	return append(b, v.Version, v.Revision)
}

func (v PseudowireCapabilities) appendValue(b []byte) []byte {
	for _, t := range v {
		b = put16(b, t)
	}
	return b
}

func (v ResultCode) appendValue(b []byte) []byte {
	b = be.AppendUint16(b, v.Result)
	if v.HasError || v.Error != 0 || v.Message != "" {
		b = append(put16(b, v.Error), v.Message...)
	}
	return b
}

func (v MessageDigest) appendValue(b []byte) []byte {
	return append(append(b, byte(v.Algorithm)), v.Digest...)
}

func (v CircuitErrors) appendValue(b []byte) []byte {
	b = be.AppendUint16(b, v.Reserved)
	if !v.Short {
		b = be.AppendUint32(b, v.CRC)
		b = be.AppendUint32(b, v.Framing)
	}
	b = be.AppendUint32(b, v.HardwareOverruns)
	b = be.AppendUint32(b, v.BufferOverruns)
	b = be.AppendUint32(b, v.Timeouts)
	return be.AppendUint32(b, v.Alignment)
}

func (v ExtendedVendorID) appendValue(b []byte) []byte {
	b = be.AppendUint32(b, v.Vendor)
	return append(be.AppendUint16(b, v.Type), v.Value...)
}

func (v ATMAlarmStatus) appendValue(b []byte) []byte {
	return be.AppendUint16(be.AppendUint16(b, v.Reason), v.Alarm)
}

func (v VCCVCapability) appendValue(b []byte) []byte {
	return append(b, v.ControlChannels, v.ConnectivityVerification)
}

func (v ConnectSpeedUpdate) appendValue(b []byte) []byte {
	b = be.AppendUint32(b, v.RemoteSessionID)
	return be.AppendUint64(be.AppendUint64(b, v.Tx), v.Rx)
}

func (v FailoverCapability) appendValue(b []byte) []byte {
	return be.AppendUint32(be.AppendUint16(b, v.Flags), v.RecoveryTime)
}

func (v TunnelRecovery) appendValue(b []byte) []byte {
	b = be.AppendUint16(b, v.Reserved)
	b = be.AppendUint32(b, v.ControlConnectionID)
	return be.AppendUint32(b, v.RemoteControlConnectionID)
}

func (v SuggestedControlSequence) appendValue(b []byte) []byte {
	b = be.AppendUint16(b, v.Reserved)
	return be.AppendUint16(be.AppendUint16(b, v.Ns), v.Nr)
}

func (v FailoverSessionState) appendValue(b []byte) []byte {
	b = be.AppendUint16(b, v.Reserved)
	return be.AppendUint32(be.AppendUint32(b, v.SessionID), v.RemoteSessionID)
}

func (v TDMPseudowire) appendValue(b []byte) []byte { return append(b, v[:]...) }
func (v RTP) appendValue(b []byte) []byte           { return append(b, v[:]...) }

func (v SBFDTargetDiscriminator) appendValue(b []byte) []byte {
	for _, d := range v {
		b = be.AppendUint32(b, d)
	}
	return b
}
