interfaces {
    bridge br0 {
        member {
            interface eth1 {
            }
            interface l2tpeth10 {
                allowed-vlan 10
            }
        }
    }
    ethernet eth0 {
        address 203.0.113.2/24
    }
    l2tpv3 l2tpeth10 {
        description "to the other house"
        destination-port 5001
        encapsulation ip
        mtu 1450
        peer-session-id 110
        peer-tunnel-id 10
        remote 2001:db8::1
        session-id 111
        source-address 2001:db8::2
        tunnel-id 11
        vrf red
    }
}
/* Warning: Do not remove the following line. */
system {
    host-name r1
}
// Release version: 1.4
