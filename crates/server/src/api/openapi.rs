//! The API described in OpenAPI 3.1, from the types of its operations.

use http::Method;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{Call, ErrorAnswer, Visitor, calls};

/// The whole document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut describe = Describe { schemas: settings.into_generator(), paths: Map::new() };
    calls::each(&mut describe);
    let error = describe.schemas.subschema_for::<ErrorAnswer>();
    let failed =
        json!({"description": "What is wrong, why, and what to do", "content": content(&json!(error))});
    for path in describe.paths.values_mut() {
        for operation in path.as_object_mut().into_iter().flat_map(Map::values_mut) {
            operation["responses"]["default"] = failed.clone();
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Semel",
            "version": "1",
            "description": "Immutable artefacts: build once, deploy many, prove it. A refusal by a rule is 409 with the recorded answer as its body.",
            "license": {"name": "Apache-2.0 OR MIT"},
        },
        "paths": describe.paths,
        "components": {"schemas": describe.schemas.take_definitions(true)},
    })
}

struct Describe {
    schemas: SchemaGenerator,
    paths: Map<String, Value>,
}

impl Visitor for Describe {
    fn call<C: Call>(&mut self) {
        let question = json!(self.schemas.root_schema_for::<C>());
        let answer = json!(self.schemas.subschema_for::<C::Answer>());
        let mut operation = json!({
            "summary": C::SUMMARY,
            "operationId": C::schema_name(),
            "responses": {"200": {"description": "Done, or nothing to do", "content": content(&answer)}},
        });
        if C::METHOD == Method::GET {
            operation["parameters"] = parameters(&question);
        } else {
            let body = json!(self.schemas.subschema_for::<C>());
            operation["requestBody"] = json!({"required": true, "content": content(&body)});
        }
        let method = C::METHOD.as_str().to_lowercase();
        let path = self.paths.entry(format!("/api/v1{}", C::PATH)).or_insert_with(|| json!({}));
        path[method] = operation;
    }
}

fn content(schema: &Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

/// The fields of a flat question as query parameters.
fn parameters(question: &Value) -> Value {
    let required: Vec<&str> =
        question["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let fields = question["properties"].as_object().cloned().unwrap_or_default();
    let one = |(name, schema): (String, Value)| json!({"name": name, "in": "query", "required": required.contains(&name.as_str()), "schema": schema});
    Value::Array(fields.into_iter().map(one).collect())
}
