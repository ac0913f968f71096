-- The guide's ten indexes, section 1.1, by its names.
CREATE INDEX idx_content_user_id ON content (user_id);
CREATE INDEX idx_content_created_at ON content (created_at DESC);
CREATE INDEX idx_content_status ON content (status);
CREATE INDEX idx_content_user_status ON content (user_id, status);
CREATE INDEX idx_nft_owner ON nft (owner_address);
CREATE INDEX idx_nft_contract ON nft (contract_address);
CREATE INDEX idx_nft_token_id ON nft (token_id);
CREATE INDEX idx_transaction_user ON "transaction" (user_id);
CREATE INDEX idx_transaction_status ON "transaction" (status);
CREATE INDEX idx_transaction_created_at ON "transaction" (created_at DESC);

-- A user's cursor page: without it every page sorts all rows of the user.
CREATE INDEX idx_content_user_page ON content (user_id, id);
-- The join behind `expand=nfts`, and the rows that a deleted content lets go.
CREATE INDEX idx_nft_content ON nft (content_id);
CREATE INDEX idx_idempotency_expires_at ON idempotency (expires_at);
