SwaggerUIBundle({
  dom_id: "#page",
  url: "/openapi.json",
  deepLinking: true,
  displayRequestDuration: true,
  // By default, Swagger UI sends the document to an external validator.
  validatorUrl: null,
});
