//! Packets one by one whose coming out is a case of its own.
