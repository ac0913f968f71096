//! The fields of each row that clients may see and select.

use crate::db::content::{Content, ContentSummary};
use crate::db::nft::Nft;
use crate::db::transactions::Transaction;
use crate::db::users::User;

use super::fields::selectable;

selectable!(Content {
    id,
    user_id,
    title,
    description,
    status,
    kind,
    visibility,
    body,
    body_bytes,
    version,
    metadata,
    created_at,
    updated_at,
    storage,
});

// Without the body: a page of a hundred would carry up to 6 MiB.
selectable!(ContentSummary {
    id,
    user_id,
    title,
    description,
    status,
    kind,
    visibility,
    body_bytes,
    version,
    created_at,
    updated_at,
});

selectable!(Nft {
    id,
    contract_address,
    token_id,
    owner_address,
    chain_id,
    content_id
});

selectable!(Transaction {
    id,
    user_id,
    tx_hash,
    status,
    value,
    created_at
});

selectable!(User {
    id,
    wallet_address,
    display_name,
    created_at,
    content_bytes,
    content_by_status,
});
