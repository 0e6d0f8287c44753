//! The ledger on samples made by hand.
