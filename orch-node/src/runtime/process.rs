//! Processes on the host.
