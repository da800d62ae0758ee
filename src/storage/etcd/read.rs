//! Everything under the prefix, at one revision, in pages.

use bytes::{BufMut, BytesMut};

use super::{
    client::Client,
    failure::Failure,
    keys::Keys,
    rpc::RangeRequest,
    told::{Read, revision},
};

/// Records in one answer: a megabyte or two.
const PAGE: i64 = 1_000;
/// How often reading may begin again because what it reads was compacted meanwhile.
const ATTEMPTS: usize = 5;

pub async fn everything(client: &Client, keys: &Keys) -> Result<Read, Failure> {
    let mut attempt = 1;
    loop {
        match at_one_revision(client, keys).await {
            Err(Failure::Compacted) if attempt < ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
    }
}

async fn at_one_revision(client: &Client, keys: &Keys) -> Result<Read, Failure> {
    let (key, range_end) = keys.all();
    let mut request = RangeRequest { key, range_end, limit: PAGE, ..RangeRequest::default() };
    let mut read = Read::default();
    loop {
        let page = client.range(&request).await?;
        if request.revision == 0 {
            request.revision = page.header.unwrap_or_default().revision;
            read.revision = revision(request.revision);
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else {
            read.values.extend(page.kvs);
            return Ok(read);
        };
        // The next key there can be.
        let mut next = BytesMut::from(&last.key[..]);
        next.put_u8(0);
        request.key = next.freeze();
        read.values.extend(page.kvs);
    }
}
