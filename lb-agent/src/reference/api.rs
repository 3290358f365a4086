//! `api.md`: calls and messages of the agent's socket, with the comments of the proto file.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use protox::prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use super::{cell, settle};

const HEAD: &str = "\
# API

gRPC over the agent's Unix socket (`/run/lb-agent/agent.sock`): what the command line uses. The file is
[`proto/lb/v1/agent.proto`](../../proto/lb/v1/agent.proto); packages `lb.v1` and `grpc.health.v1` (`Check`).

";

// Numbers of fields in `google/protobuf/descriptor.proto`, of which paths of comments are made.
const MESSAGE: i32 = 4;
const SERVICE: i32 = 6;
const METHOD: i32 = 2;
const FIELD: i32 = 2;
const NESTED: i32 = 3;

/// Comments by the path of what they stand above.
struct Comments(BTreeMap<Vec<i32>, String>);

impl Comments {
    fn of(&self, path: &[i32]) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }
}

#[test]
fn page() {
    let file = file();
    let info = file.source_code_info.as_ref().unwrap();
    let comments = info.location.iter().map(|location| {
        let comment = location.leading_comments().to_owned();
        (location.path.clone(), comment)
    });
    let comments = Comments(
        comments
            .filter(|(_, comment)| !comment.is_empty())
            .collect(),
    );
    let mut page = HEAD.to_owned();
    page.push_str(&conventions());
    for (index, service) in file.service.iter().enumerate() {
        write!(page, "\n## Calls of `{}`\n\n", service.name()).unwrap();
        page.push_str("| call | request | reply | meaning |\n| --- | --- | --- | --- |\n");
        for (number, method) in service.method.iter().enumerate() {
            let path = [SERVICE, index as i32, METHOD, number as i32];
            let help = comments.of(&path);
            assert!(!help.is_empty(), "{} has no comment", method.name());
            let link = |name: &str, streams| {
                let name = name.rsplit('.').next().unwrap();
                let stream = if streams { "stream of " } else { "" };
                format!("{stream}[`{name}`](#{})", name.to_lowercase())
            };
            let request = link(method.input_type(), method.client_streaming());
            let reply = link(method.output_type(), method.server_streaming());
            writeln!(
                page,
                "| `{}` | {request} | {reply} | {} |",
                method.name(),
                cell(help)
            )
            .unwrap();
        }
    }
    page.push_str("\n## Messages\n");
    for (index, message) in file.message_type.iter().enumerate() {
        describe(
            &mut page,
            message,
            message.name(),
            &[MESSAGE, index as i32],
            &comments,
        );
    }
    settle("api.md", &page);
}

fn file() -> FileDescriptorProto {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let mut compiler = protox::Compiler::new([proto]).unwrap();
    compiler.include_source_info(true);
    compiler.open_file("lb/v1/agent.proto").unwrap();
    let set = compiler.file_descriptor_set();
    set.file
        .into_iter()
        .find(|file| file.name() == "lb/v1/agent.proto")
        .unwrap()
}

/// The comment at the top of the file.
fn conventions() -> String {
    let proto = include_str!("../../../proto/lb/v1/agent.proto");
    let lines = proto.lines().map_while(|line| line.strip_prefix("//"));
    lines
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect()
}

fn describe(
    page: &mut String,
    message: &DescriptorProto,
    name: &str,
    path: &[i32],
    comments: &Comments,
) {
    let help = comments.of(path);
    assert!(!help.is_empty(), "{name} has no comment");
    write!(page, "\n### `{name}`\n\n{}\n", cell(help)).unwrap();
    if !message.field.is_empty() {
        page.push_str("\n| field | type | meaning |\n| --- | --- | --- |\n");
    }
    for (index, field) in message.field.iter().enumerate() {
        let help = comments.of(&[path, &[FIELD, index as i32]].concat());
        assert!(!help.is_empty(), "{name}.{} has no comment", field.name());
        writeln!(
            page,
            "| `{}` | {} | {} |",
            field.name(),
            kind(field, message),
            cell(help)
        )
        .unwrap();
    }
    for (index, nested) in message.nested_type.iter().enumerate() {
        if nested
            .options
            .as_ref()
            .is_some_and(|options| options.map_entry())
        {
            continue;
        }
        let path = [path, &[NESTED, index as i32]].concat();
        describe(
            page,
            nested,
            &format!("{name}.{}", nested.name()),
            &path,
            comments,
        );
    }
}

fn kind(field: &FieldDescriptorProto, within: &DescriptorProto) -> String {
    let last = field.type_name().rsplit('.').next();
    let entry = within.nested_type.iter().find(|nested| {
        let is_entry = nested
            .options
            .as_ref()
            .is_some_and(|options| options.map_entry());
        is_entry && Some(nested.name()) == last
    });
    if let Some([key, value]) = entry.map(|entry| &entry.field[..]) {
        return format!("{} by {}", kind(value, within), kind(key, within));
    }
    let name = match field.r#type() {
        Type::Message | Type::Enum => {
            let name = field.type_name().trim_start_matches(".lb.v1.");
            let anchor = name.to_lowercase().replace('.', "");
            format!("[`{name}`](#{anchor})")
        }
        scalar => format!(
            "`{}`",
            scalar
                .as_str_name()
                .trim_start_matches("TYPE_")
                .to_lowercase()
        ),
    };
    let optional = if field.proto3_optional() {
        "optional "
    } else {
        ""
    };
    match field.label() {
        Label::Repeated => format!("list of {name}"),
        _ => format!("{optional}{name}"),
    }
}
