package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of a connection, as the kernel saw it
// when it connected (SO_PEERCRED, unix(7)).
type Peer struct {
	PID int32
	UID uint32
	GID uint32
}

type peerKey struct{}

// WithPeer returns a context that carries p.
func WithPeer(ctx context.Context, p Peer) context.Context {
	return context.WithValue(ctx, peerKey{}, p)
}

// PeerFrom returns who sent the request that ctx belongs to; false if unknown.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}

// ConnContext is the http.Server.ConnContext that puts the Peer of a unix
// connection into the context of its requests.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil || credErr != nil {
		return ctx
	}
	return WithPeer(ctx, Peer{PID: cred.Pid, UID: cred.Uid, GID: cred.Gid})
}

// OwnerMayChange lets root and the daemon's own user change things. Everyone
// else who may open the socket may read.
func OwnerMayChange(p Peer) bool {
	return p.UID == 0 || p.UID == uint32(os.Geteuid())
}

// changer is who asks for a change, for the history and for the log. The error is
// for those who may only look.
func (s *Server) changer(r *http.Request, what string) (by string, who slog.Attr, err error) {
	peer, known := PeerFrom(r.Context())
	who = slog.Group("client", "pid", peer.PID, "uid", peer.UID, "gid", peer.GID)
	if !known || !s.mayChange(peer) {
		s.log.Warn(what+" refused", who)
		return "", who, notPermitted
	}
	return peerName(peer), who, nil
}

// peerName is who a client is in the history.
func peerName(p Peer) string { return fmt.Sprintf("uid %d", p.UID) }
