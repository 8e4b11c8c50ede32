//! Every namespace, with its XEP or RFC, its version, and the file that implements its behaviour.

macro_rules! namespaces { ($($(#[$m:meta])* $name:ident = $uri:literal;)+) => { $(#[doc = concat!("`", $uri, "` ")] $(#[$m])* pub const $name: &str = $uri;)+
    /// Every namespace of this file.
    pub const ALL: &[&str] = &[$($name),+]; }; }

namespaces! {
    /// RFC 6120, `xmpp/stream.rs`
    CLIENT = "jabber:client";
    /// XEP-0114, `xmpp/component.rs` (with the bridge)
    COMPONENT = "jabber:component:accept";
    /// RFC 6120, `xmpp/stream.rs`
    STREAM = "http://etherx.jabber.org/streams";
    /// RFC 6120 stream errors
    STREAMS = "urn:ietf:params:xml:ns:xmpp-streams";
    /// RFC 6120 stanza errors
    STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas";
    /// RFC 6120 STARTTLS
    TLS = "urn:ietf:params:xml:ns:xmpp-tls";
    /// RFC 6120 SASL, `xmpp/sasl.rs`
    SASL = "urn:ietf:params:xml:ns:xmpp-sasl";
    /// XEP-0440 1.0.0
    SASL_CB = "urn:xmpp:sasl-cb:0";
    /// RFC 6120 resource binding
    BIND = "urn:ietf:params:xml:ns:xmpp-bind";
    /// RFC 3921 session establishment (ignored)
    SESSION = "urn:ietf:params:xml:ns:xmpp-session";
    /// XEP-0198 1.6.3, `xmpp/resume.rs`
    SM = "urn:xmpp:sm:3";
    /// RFC 6121, `xmpp/presence.rs`
    ROSTER = "jabber:iq:roster";
    /// RFC 6121 roster versioning
    ROSTERVER = "urn:xmpp:features:rosterver";
    /// XEP-0030 2.5.0, `xmpp/caps.rs`
    DISCO_INFO = "http://jabber.org/protocol/disco#info";
    /// XEP-0030 2.5.0
    DISCO_ITEMS = "http://jabber.org/protocol/disco#items";
    /// XEP-0115 1.6.0, `xmpp/caps.rs`
    CAPS = "http://jabber.org/protocol/caps";
    /// XEP-0004 2.13.2 (inside disco)
    DATA = "jabber:x:data";
    /// XEP-0199 2.0.1
    PING = "urn:xmpp:ping";
    /// XEP-0203 2.0
    DELAY = "urn:xmpp:delay";
    /// XEP-0215 1.0.0, `xmpp/services.rs`
    EXTDISCO = "urn:xmpp:extdisco:2";
    /// XEP-0215 older
    EXTDISCO_1 = "urn:xmpp:extdisco:1";
    /// RFC 3863, `wire/event_body.rs`
    PIDF = "urn:ietf:params:xml:ns:pidf";
    /// RFC 4479
    PIDF_DATA_MODEL = "urn:ietf:params:xml:ns:pidf:data-model";
    /// RFC 4480
    RPID = "urn:ietf:params:xml:ns:pidf:rpid";
    /// RFC 4235, `wire/event_body.rs`
    DIALOG_INFO = "urn:ietf:params:xml:ns:dialog-info";
    /// XEP-0280 1.0.1
    CARBONS = "urn:xmpp:carbons:2";
    /// XEP-0297 1.0
    FORWARD = "urn:xmpp:forward:0";
    /// XEP-0313 1.1.3 (only recognised)
    MAM = "urn:xmpp:mam:2";
    /// XEP-0334 1.0.0
    HINTS = "urn:xmpp:hints";
    /// XEP-0166 1.1.2, `jingle/session.rs`
    JINGLE = "urn:xmpp:jingle:1";
    /// XEP-0166 1.1.2
    JINGLE_ERRORS = "urn:xmpp:jingle:errors:1";
    /// XEP-0167 1.2.3, `jingle/content.rs`
    RTP = "urn:xmpp:jingle:apps:rtp:1";
    /// XEP-0167 disco feature
    RTP_AUDIO = "urn:xmpp:jingle:apps:rtp:audio";
    /// XEP-0167 disco feature
    RTP_VIDEO = "urn:xmpp:jingle:apps:rtp:video";
    /// XEP-0167 1.2.3
    RTP_ERRORS = "urn:xmpp:jingle:apps:rtp:errors:1";
    /// XEP-0167 1.2.3
    RTP_INFO = "urn:xmpp:jingle:apps:rtp:info:1";
    /// XEP-0293 1.0.2
    RTP_RTCP_FB = "urn:xmpp:jingle:apps:rtp:rtcp-fb:0";
    /// XEP-0294 1.1.2
    RTP_HDREXT = "urn:xmpp:jingle:apps:rtp:rtp-hdrext:0";
    /// XEP-0339 1.0.1
    RTP_SSMA = "urn:xmpp:jingle:apps:rtp:ssma:0";
    /// XEP-0320 1.0.0, `transport/dtls.rs`
    DTLS = "urn:xmpp:jingle:apps:dtls:0";
    /// XEP-0338 1.0.0
    GROUPING = "urn:xmpp:jingle:apps:grouping:0";
    /// XEP-0338 disco feature
    GROUPING_FEATURE = "urn:ietf:rfc:5888";
    /// XEP-0176 disco feature of peers that want all candidates in the offer
    RFC3264 = "urn:ietf:rfc:3264";
    /// XEP-0176 1.1.1, `transport/ice.rs`
    ICE_UDP = "urn:xmpp:jingle:transports:ice-udp:1";
    /// XEP-0371 0.3.1
    ICE = "urn:xmpp:jingle:transports:ice:0";
    /// XEP-0177 1.1.1
    RAW_UDP = "urn:xmpp:jingle:transports:raw-udp:1";
    /// XEP-0260 1.0.3
    S5B = "urn:xmpp:jingle:transports:s5b:1";
    /// XEP-0261 1.0
    IBB_TRANSPORT = "urn:xmpp:jingle:transports:ibb:1";
    /// XEP-0343 0.3.1
    SCTP_MAP = "urn:xmpp:jingle:transports:dtls-sctp:1";
    /// XEP-0234 0.19.1
    FILE = "urn:xmpp:jingle:apps:file-transfer:5";
    /// XEP-0234 older, read only
    FILE_4 = "urn:xmpp:jingle:apps:file-transfer:4";
    /// XEP-0234 older, read only
    FILE_3 = "urn:xmpp:jingle:apps:file-transfer:3";
    /// XEP-0234 0.19.1
    FILE_ERRORS = "urn:xmpp:jingle:apps:file-transfer:errors:0";
    /// XEP-0300 1.0.0
    HASHES = "urn:xmpp:hashes:2";
    /// XEP-0300 older
    HASHES_1 = "urn:xmpp:hashes:1";
    /// XEP-0065 1.8.2
    BYTESTREAMS = "http://jabber.org/protocol/bytestreams";
    /// XEP-0047 2.0.1
    IBB = "http://jabber.org/protocol/ibb";
    /// XEP-0353 0.8.0, `jingle/invite.rs`
    JMI = "urn:xmpp:jingle-message:0";
    /// XEP-0353 variant seen from some peers, read only
    JMI_1 = "urn:xmpp:jingle-message:1";
    /// XEP-0181 0.12
    DTMF = "urn:xmpp:jingle:dtmf:0";
    /// The XML namespace itself
    XML = "http://www.w3.org/XML/1998/namespace";
}
