//! An event as filters see it: `namespace`, `topic`, and `event.FIELD` of containerd's own events,
//! such as `event.container_id`; `event.labels.KEY` where an event has labels.

use std::collections::HashMap;
use std::sync::LazyLock;

use berth_types::filter::Fields;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::{Any, FileDescriptorSet};

use crate::Envelope;

/// Full names of messages, with the numbers of their fields by name.
type Numbers = HashMap<String, HashMap<String, u32>>;

/// The messages of containerd's events. Read when a filter first asks for a field.
static NUMBERS: LazyLock<Numbers> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(berth_proto::FILE_DESCRIPTOR_SET).unwrap_or_default();
    let ours = files.file.into_iter().filter(|file| file.name().starts_with("containerd/events/"));
    ours.flat_map(|file| {
        let package = file.package().to_owned();
        file.message_type.into_iter().map(move |message| {
            let fields = message.field.iter();
            let fields =
                fields.map(|field| (field.name().to_owned(), field.number().unsigned_abs()));
            (format!("{package}.{}", message.name()), fields.collect())
        })
    })
    .collect()
});

pub(crate) struct View<'a>(pub(crate) &'a Envelope);

impl Fields for View<'_> {
    fn field(&self, path: &[String]) -> Option<&str> {
        let value = match path.first()?.as_str() {
            "namespace" => &self.0.namespace,
            "topic" => &self.0.topic,
            "event" => event_field(self.0.event.as_ref()?, &path[1..])?,
            _ => return None,
        };
        Some(value).filter(|value| !value.is_empty())
    }
}

/// A text in an encoded event.
fn event_field<'a>(event: &'a Any, path: &[String]) -> Option<&'a str> {
    let name = event.type_url.rsplit('/').next()?;
    let number = *NUMBERS.get(name)?.get(path.first()?)?;
    let mut values = delimited(&event.value, number);
    let value = match &path[1..] {
        [] => values.last()?,
        // A map's entry is a message of a key and a value.
        key => {
            let key = key.join(".");
            let entry = values.find(|entry| delimited(entry, 1).last() == Some(key.as_bytes()))?;
            delimited(entry, 2).last()?
        }
    };
    std::str::from_utf8(value).ok()
}

/// The values of a text, bytes or message field in an encoded message. They end where the encoding
/// makes no sense.
fn delimited(mut message: &[u8], wanted: u32) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while !message.is_empty() {
            let (number, wire) = decode_key(&mut message).ok()?;
            if wire == WireType::LengthDelimited {
                let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
                let (value, rest) = message.split_at_checked(length)?;
                message = rest;
                if number == wanted {
                    return Some(value);
                }
            } else {
                skip_field(wire, number, &mut message, DecodeContext::default()).ok()?;
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use berth_proto::containerd::events::TaskExit;
    use berth_proto::containerd::services::images::v1::ImageCreate;
    use prost::Name;

    use super::*;

    fn envelope<M: Message + Name>(event: &M) -> Envelope {
        Envelope {
            namespace: "default".into(),
            topic: "/tasks/exit".into(),
            event: Some(Any { type_url: M::full_name(), value: event.encode_to_vec() }),
            ..Default::default()
        }
    }

    fn field(envelope: &Envelope, path: &[&str]) -> Option<String> {
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        View(envelope).field(&path).map(str::to_owned)
    }

    #[test]
    fn envelope_and_event_have_fields() {
        let exit = envelope(&TaskExit {
            container_id: "c".into(),
            pid: 7,
            id: "e".into(),
            ..Default::default()
        });
        assert_eq!(field(&exit, &["namespace"]).as_deref(), Some("default"));
        assert_eq!(field(&exit, &["topic"]).as_deref(), Some("/tasks/exit"));
        assert_eq!(field(&exit, &["event", "container_id"]).as_deref(), Some("c"));
        assert_eq!(field(&exit, &["event", "id"]).as_deref(), Some("e"));
        for absent in [&["event"][..], &["event", "pid"], &["event", "x"], &["x"], &[]] {
            assert_eq!(field(&exit, absent), None, "{absent:?}");
        }
    }

    #[test]
    fn labels_are_found_by_key() {
        let labels = [("a.b".to_owned(), "1".to_owned()), ("c".to_owned(), "2".to_owned())].into();
        let image = envelope(&ImageCreate { name: "i".into(), labels });
        assert_eq!(field(&image, &["event", "labels", "a", "b"]).as_deref(), Some("1"));
        assert_eq!(field(&image, &["event", "labels", "c"]).as_deref(), Some("2"));
        assert_eq!(field(&image, &["event", "labels", "d"]), None);
    }

    #[test]
    fn nonsense_has_no_fields() {
        let mut exit = envelope(&TaskExit { id: "e".into(), ..Default::default() });
        exit.event.as_mut().unwrap().value = vec![0x12, 0xff, 0xff];
        assert_eq!(field(&exit, &["event", "id"]), None);
    }
}
