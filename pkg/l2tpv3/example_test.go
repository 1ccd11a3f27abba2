package l2tpv3_test

import (
	"encoding/hex"
	"fmt"

	"github.com/pwd-project/pwd/pkg/l2tpv3"
)

// What comes in is read, judged, and its AVPs are found by their type.
func ExampleParse() {
	datagram, _ := hex.DecodeString("c8030038" + "11111111" + "00030002" +
		"8008" + "0000" + "0000" + "000e" + // Message Type: CDN
		"8010" + "0000" + "0001" + "0002" + "0008" + "617474722032" + // Result Code
		"800a" + "0000" + "003f" + "00000007" + // Local Session ID
		"800a" + "0000" + "0040" + "00000009") // Remote Session ID
	m, err := l2tpv3.Parse(datagram)
	if err != nil {
		fmt.Println(err) // malformed: to be dropped
		return
	}
	if u, ok := l2tpv3.UnknownMandatory(m); ok {
		fmt.Println("answer with", u.ResultCode())
	}
	if err := l2tpv3.Validate(m); err != nil {
		fmt.Println(err)
	}
	id, _ := l2tpv3.Find[l2tpv3.RemoteSessionID](m)
	fmt.Println("for session", uint32(id))
	fmt.Println(m)
	// Output:
	// for session 9
	// CDN ccid=0x11111111 ns=3 nr=2 Result Code: general error: unknown mandatory AVP ("attr 2"); Local Session ID: 0x00000007; Remote Session ID: 0x00000009
}

// A message with a digest is written, then signed.
func ExampleSign() {
	secret := l2tpv3.NewSecret([]byte("l2tp-secret"))
	m := l2tpv3.NewMessage(l2tpv3.Hello, l2tpv3.NewMessageDigest(l2tpv3.HMACMD5))
	m.ControlConnectionID = 0x22222222
	b, err := m.Append(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	ours, theirs := []byte("nonce of ours"), []byte("nonce of theirs")
	if err := l2tpv3.Sign(b, ours, theirs, secret); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(l2tpv3.Verify(b, ours, theirs, secret))
	l2tpv3.SetNr(b, 1) // a retransmission has to be signed again
	fmt.Println(l2tpv3.Verify(b, ours, theirs, secret))
	// Output:
	// <nil>
	// l2tpv3: the message digest is not valid under any configured secret
}
