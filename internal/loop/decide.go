package loop

// decide says which of a site's pseudowires of a network must not forward, by peer, and for which of
// the joined sites. peers says of each peer of the site whether it gets through to it; joined are the sites
// whose LAN is that of this site, with the peers that each of them gets through to. Each site decides for
// itself, and from the same knowledge they decide the same:
//
//   - A pseudowire between two sites that are joined anyway is not needed: what joins them forwards.
//   - One of the joined sites forwards for all of them: the one that gets through to most others, the first
//     by name of several. Were it one for this peer and another for that, split horizon would not hold
//     between the two: what comes in at one would go out at the other.
//
// What remains is one pseudowire between every two LANs, or with a hub one from each to that of the hub.
func decide(site string, peers map[string]bool, joined map[string]map[string]bool) map[string]string {
	if len(joined) == 0 {
		return nil
	}
	others := func(of string, reaches map[string]bool) (n int) {
		for _, peer := range told(reaches) { // of itself a site counts what the others know, too
			if _, together := joined[peer]; !together && peer != site && peer != of {
				n++
			}
		}
		return n
	}
	first, most := site, others(site, peers)
	for other, reaches := range joined {
		if n := others(other, reaches); n > most || n == most && other < first {
			first, most = other, n
		}
	}
	blocked := map[string]string{}
	for peer := range peers {
		if _, is := joined[peer]; is {
			blocked[peer] = peer
		} else if first != site {
			blocked[peer] = first
		}
	}
	return blocked
}
