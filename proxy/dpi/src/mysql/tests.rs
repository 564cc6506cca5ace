//! MySQL flows, written by hand after what MySQL 8.0 and MariaDB 10.11 send.
