//! What host code calls while it serves: guards for requests, caches, queries and pools.
//!
//! May use the store and the catalogue. Absent on purpose: allocation and locks after warm-up,
//! since this runs inside someone's request.
