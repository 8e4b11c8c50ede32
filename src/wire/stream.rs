//! Stream features, STARTTLS, SASL, stream management and stream errors. Read RFC 6120 §4 to §6 and XEP-0198.
