SwaggerUIBundle({
  dom_id: "#page",
  url: "/openapi.json",
  deepLinking: true,
  displayRequestDuration: true,
  // Swagger UI would send the document to a validator on the internet.
  validatorUrl: null,
});
