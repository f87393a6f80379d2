//! ttrpc framing, client and server over prost messages.
