//! One leg: path, protection, RTP. Skeleton of the interface.
